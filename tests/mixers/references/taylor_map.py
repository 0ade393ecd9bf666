"""Based with flash-linear-attention's weights, and token by token."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.fla_naive import naive
from tests.mixers.reference import Reference


class BasedLayer(Reference):
    """The maps around Based's attention, with queries and keys of `feature_width`."""

    def __init__(
        self, *, width: int, heads: int, feature_width: int = 16, chunk: int = 128, causal: bool = True
    ) -> None:
        super().__init__(width=width)
        self.heads, self.causal = heads, causal
        self.query, self.key = (nn.Linear(width, heads * feature_width, bias=False) for _ in range(2))
        self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value))
        return self.out(self.attend(*(each.transpose(1, 2) for each in (q, k, v))).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def weights(self) -> Mapping[str, Tensor]:
        return {f"{name}.weight": getattr(self, name).weight for name in ("query", "key", "value", "out")}


class ParallelBased(BasedLayer):
    mixer = "based"
    source = "`naive_parallel_based` in the layer of 2402.18668"
    package = "fla-core"
    compared = "op"
    choices = "the weights' sum plus 1e-10, there 1e-6"
    cases = ({"heads": 2}, {"heads": 4, "feature_width": 5, "chunk": 24})

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        attend = naive("based/naive.py").naive_parallel_based
        sums = attend(q, k, torch.cat([v, torch.ones_like(v[..., :1])], dim=-1), use_norm=False)
        return sums[..., :-1] / (sums[..., -1:] + 1e-10)


class TaylorMap(BasedLayer):
    """The state of φ(x) = [1, x / d^¼, x ⊗ x / √(2d)], added up token by token."""

    mixer = "based"
    source = "2402.18668, the Taylor feature map"
    choices = "the weights' sum plus 1e-10; the paper has no bidirectional form"
    cases = ({"heads": 2, "feature_width": 4}, {"heads": 1, "feature_width": 6, "causal": False})

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = (features(each) for each in (q, k))
        total, size, outputs = torch.zeros_like(q[:, :, 0, :, None] * v[:, :, 0, None]), 0, []
        sums = [(total, size)]
        for t in range(q.shape[2]):
            total, size = total + k[:, :, t, :, None] * v[:, :, t, None], size + k[:, :, t]
            sums.append((total, size))
        for t in range(q.shape[2]):
            total, size = sums[t + 1] if self.causal else sums[-1]
            weighted = (q[:, :, t, :, None] * total).sum(-2)
            outputs.append(weighted / ((q[:, :, t] * size).sum(-1, keepdim=True) + 1e-10))
        return torch.stack(outputs, dim=2)


def features(x: Tensor) -> Tensor:
    d = x.shape[-1]
    squares = (x[..., :, None] * x[..., None, :]).flatten(-2) / (2 * d) ** 0.5
    return torch.cat([torch.ones_like(x[..., :1]), x / d**0.25, squares], dim=-1)
