"""Performer's attention from the formulas of its paper."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.reference import Reference


class PerformerLayer(Reference):
    """The maps around the attention, and the exponents of features in orthogonal directions."""

    cases = (
        {"heads": 2, "features": 16},
        {"heads": 4, "features": 7, "chunk": 24},
        {"heads": 2, "features": 16, "causal": False},
    )
    lengths = (1, 7, 33, 65)

    def __init__(self, *, width: int, heads: int, features: int, chunk: int = 64, causal: bool = True) -> None:
        super().__init__(width=width)
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.register_buffer("directions", orthogonal_gaussian(features, width // heads))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value))
        q, k = self.exponents(q), self.exponents(k)
        outputs = []
        for t in range(x.shape[1]):
            last = t + 1 if self.causal else x.shape[1]
            weights = self.weigh(q[:, t, None], k, last)
            outputs.append((weights[..., None] * v[:, :last]).sum(1) / (weights.sum(1)[..., None] + 1e-10))
        return self.out(torch.stack(outputs, dim=1).flatten(2))

    def exponents(self, x: Tensor) -> Tensor:
        """Return the logarithms of the features, b t h f."""
        x = x / x.shape[-1] ** 0.25
        along = torch.stack([(x * each).sum(-1) for each in self.directions], dim=-1)
        return along - x.square().sum(-1, keepdim=True) / 2 - math.log(len(self.directions)) / 2

    def weigh(self, q: Tensor, k: Tensor, last: int) -> Tensor:
        """Return the weights of the first `last` tokens for one query, b last h."""
        raise NotImplementedError

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "projections.query.weight": self.query.weight,
            "projections.key.weight": self.key.weight,
            "projections.value.weight": self.value.weight,
            "out.weight": self.out.weight,
            "directions": self.directions,
        }


class Favor(PerformerLayer):
    """FAVOR+ with h(x) = exp(-‖x‖²/2) and f = exp; in float64 it needs no stabiliser."""

    mixer = "performer"
    source = "2009.14794, lemma 1 and section 2.4"
    choices = "1e-6 is added to features whose largest is 1; directions are not drawn again during training"
    bound = 1e-4

    def weigh(self, q: Tensor, k: Tensor, last: int) -> Tensor:
        return (q.exp() * k[:, :last].exp()).sum(-1)


class StableFavor(PerformerLayer):
    """The kernel of google-research/performer: features have a maximum of 1, and a floor."""

    mixer = "performer"
    source = "2009.14794, the stabiliser of the authors' code with ε = 1e-6"
    choices = (
        "the causal form divides keys by their largest feature so far, there by that of the whole sequence: a leak"
    )

    def weigh(self, q: Tensor, k: Tensor, last: int) -> Tensor:
        largest = k.amax(-1)
        if self.causal:
            largest = largest[:, :last].cummax(1).values
        else:
            largest = largest.amax(1, keepdim=True).expand_as(largest)
        features = (k[:, :last] - largest[..., None]).exp() + 1e-6
        same_scale = (largest - largest[:, -1:]).exp()
        return (((q - q.amax(-1, keepdim=True)).exp() + 1e-6) * features).sum(-1) * same_scale


def orthogonal_gaussian(count: int, width: int) -> Tensor:
    """Return Gaussian vectors of which each `width` are made orthogonal by Gram-Schmidt."""
    drawn = torch.randn(count, width)
    vectors: list[Tensor] = []
    for number, vector in enumerate(drawn):
        length = vector.norm()
        for other in vectors[number // width * width :]:
            vector = vector - (vector @ other) / (other @ other) * other
        vectors.append(vector / vector.norm() * length)
    return torch.stack(vectors)
