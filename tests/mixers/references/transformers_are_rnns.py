"""Linear attention, as a recurrent network and as one sum."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.fla_naive import naive
from tests.mixers.reference import Reference


class LinearLayer(Reference):
    """The maps around linear attention and the feature maps, one matrix per head in Hedgehog's."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        feature_map: str = "elu",
        normalise: bool = True,
        chunk: int | None = None,
        causal: bool = True,
    ) -> None:
        super().__init__(width=width)
        self.heads, self.feature_map, self.normalise, self.causal = heads, feature_map, normalise, causal
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        if feature_map == "hedgehog":
            k = width // heads
            self.query_map, self.key_map = (nn.Parameter(torch.randn(heads, k, k) * k**-0.5) for _ in range(2))
            self.query_bias, self.key_bias = (nn.Parameter(torch.randn(heads, k)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value))
        if self.feature_map == "hedgehog":
            q = torch.einsum("hij,bthj->bthi", self.query_map, q) + self.query_bias
            k = torch.einsum("hij,bthj->bthi", self.key_map, k) + self.key_bias
        return self.out(self.attend(self.features(q), self.features(k), v).flatten(2))

    def features(self, x: Tensor) -> Tensor:
        if self.feature_map == "elu":
            return torch.where(x > 0, x + 1, x.clamp(max=0).exp())
        if self.feature_map == "hedgehog":
            total = (x.exp() + (-x).exp()).sum(-1, keepdim=True)
            return torch.cat([x.exp(), (-x).exp()], dim=-1) / total
        return x.clamp(min=0) ** (2 if self.feature_map == "squared_relu" else 1) + 1e-3

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def weights(self) -> Mapping[str, Tensor]:
        weights = {f"projections.{name}.weight": getattr(self, name).weight for name in ("query", "key", "value")}
        weights["out.weight"] = self.out.weight
        if self.feature_map == "hedgehog":
            weights["query_features.weight"], weights["key_features.weight"] = self.query_map, self.key_map
            weights["query_features.bias"], weights["key_features.bias"] = (
                each[:, None] for each in (self.query_bias, self.key_bias)
            )
        return weights


class RecurrentLinearAttention(LinearLayer):
    mixer = "linear"
    source = "`naive_recurrent_linear_attn` in the layer of 2006.16236"
    package = "fla-core"
    compared = "op"
    choices = "nothing"
    cases = ({"heads": 2}, {"heads": 4, "feature_map": "hedgehog", "chunk": 24})

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return naive("linear_attn/naive.py").naive_recurrent_linear_attn(q, k, v, scale=1.0, normalize=True)[0]


class TransformersAreRNNs(LinearLayer):
    """Equations 16 to 20 token by token; bidirectional: equation 5. Other maps: see `choices`."""

    mixer = "linear"
    source = "2006.16236, equations 5 and 16 to 20"
    choices = (
        "the weights' sum plus 1e-10, in the authors' code 1e-6; the feature maps of Performer, Primer and Hedgehog "
        "(2402.04347) and TransNormer's norm (2210.10340) are settings"
    )
    cases = (
        *(
            {"heads": 2, "feature_map": name, "normalise": normalise, "causal": causal, "chunk": 16}
            for name in ("elu", "relu", "squared_relu", "hedgehog")
            for normalise in (True, False)
            for causal in (True, False)
        ),
        {"heads": 8},
        {"heads": 1, "chunk": 1},
    )
    lengths = (1, 7, 33, 65)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        total, size = torch.zeros_like(k[:, 0, :, :, None] * v[:, 0, :, None]), torch.zeros_like(k[:, 0])
        sums = []
        for t in range(v.shape[1]):
            total, size = total + k[:, t, :, :, None] * v[:, t, :, None], size + k[:, t]
            sums.append((total, size))
        outputs = []
        for t in range(v.shape[1]):
            total, size = sums[t if self.causal else -1]
            o = (q[:, t, :, :, None] * total).sum(-2)
            scale = (q[:, t] * size).sum(-1, keepdim=True) + 1e-10
            if not self.normalise:
                scale = (o.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            outputs.append(o / scale)
        return torch.stack(outputs, dim=1)
