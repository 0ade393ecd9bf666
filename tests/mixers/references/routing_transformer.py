"""Routing attention: tokens see those of their own cluster."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tests.mixers.masked_attention import MaskedAttention, attended


class RoutingTransformer(MaskedAttention):
    mixer = "routing"
    source = "its own definition, a causal form of 2003.05997"
    choices = (
        "each token takes its own cluster, so that no later token displaces it; centroids are learnt by gradients, through a "
        "margin that also weighs what is read, not by moving averages; a window of members; queries and keys are not shared"
    )
    cases = (
        {"clusters": 3, "window": 4},
        {"clusters": 2, "window": 2, "heads": 2},
        {"clusters": 2, "window": 50, "heads": 2},
        {"clusters": 5, "window": 9, "heads": 1, "rope": None},
    )

    def __init__(self, *, width: int, clusters: int, window: int, **shared: Any) -> None:
        super().__init__(width=width, **shared)
        self.window = window
        self.centroids = nn.Parameter(torch.randn(self.heads, clusters, self.each))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(x)
        plain = torch.einsum("hkd,btd->bhtk", self.w_k, x)
        lengths = plain.norm(dim=-1)[..., None] * self.centroids.norm(dim=-1)[:, None]
        scores = self.each * (plain @ self.centroids.mT) / lengths
        best, second = scores.sort(dim=-1, descending=True).values[..., :2].unbind(-1)
        margins = 2 / (1 + torch.exp(second - best)) - 1
        o = attended(q, k, v, self.members(scores.argmax(-1)), margins)
        return self.written(margins[..., None] * o)

    def members(self, cluster: Tensor) -> Tensor:
        """Return for each token the last `window` tokens up to itself in its cluster, b h t t."""
        seen = torch.zeros(*cluster.shape, cluster.shape[2], dtype=torch.bool)
        for row, of_heads in enumerate(cluster.tolist()):
            for head, own in enumerate(of_heads):
                for i in range(len(own)):
                    latest = [j for j in range(i + 1) if own[j] == own[i]][-self.window :]
                    seen[row, head, i, latest] = True
        return seen

    def weights(self) -> Mapping[str, Tensor]:
        return {**super().weights(), "centroids": self.centroids}
