"""Nyströmformer with segments of any length, one matrix at a time."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from tests.mixers.reference import Reference


class SegmentMeans(Reference):
    """softmax(Q K̃ᵀ) Z softmax(Q̃ Kᵀ) V + conv(V), with Z the approximate inverse of softmax(Q̃
    K̃ᵀ).

    Segments differ by at most one token, the longer ones first. A sequence with no more tokens than
    landmarks is attended to exactly.
    """

    mixer = "nystrom"
    source = "2102.03902, section 3, with segments of any length"
    choices = "nothing"
    cases = (
        {"heads": 4, "landmarks": 6, "iterations": 6, "conv_size": 5},
        {"heads": 1, "landmarks": 5, "iterations": 1, "conv_size": 1},
        {"heads": 8, "landmarks": 1, "iterations": 3, "conv_size": 9},
        {"heads": 2, "landmarks": 30, "iterations": 6, "conv_size": 9},
    )
    lengths = (1, 7, 33, 65)

    def __init__(self, *, width: int, heads: int, landmarks: int, iterations: int, conv_size: int) -> None:
        super().__init__(width=width)
        self.heads, self.landmarks, self.iterations = heads, landmarks, iterations
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.taps = nn.Parameter(torch.randn(heads, conv_size))

    def forward(self, x: Tensor) -> Tensor:
        heads = zip(
            *(project(x).chunk(self.heads, dim=-1) for project in (self.query, self.key, self.value)), strict=True
        )
        outputs = [
            torch.stack([self.attended(*row) for row in zip(q, k, v, strict=True)]) + self.convolved(v, taps)
            for (q, k, v), taps in zip(heads, self.taps, strict=True)
        ]
        return self.out(torch.cat(outputs, dim=-1))

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output of one head and sequence, t k."""
        t, m = len(q), self.landmarks
        if t <= m:
            return kernel(q, k) @ v
        starts = [0]
        for i in range(m):
            starts.append(starts[-1] + t // m + (i < t % m))
        few_q, few_k = (torch.stack([each[start:end].mean(0) for start, end in pairwise(starts)]) for each in (q, k))
        a, one = kernel(few_q, few_k), torch.eye(m, dtype=q.dtype)
        z = a.T / a.sum(0).max()
        for _ in range(self.iterations):
            z = z @ (13 * one - a @ z @ (15 * one - a @ z @ (7 * one - a @ z))) / 4
        return kernel(q, few_k) @ z @ kernel(few_q, k) @ v

    @staticmethod
    def convolved(v: Tensor, taps: Tensor) -> Tensor:
        """Return the sums over taps centred on each token, b t k."""
        t, reach = v.shape[1], len(taps) // 2
        sums = [
            sum(taps[reach + offset] * v[:, i + offset] for offset in range(-reach, reach + 1) if 0 <= i + offset < t)
            for i in range(t)
        ]
        return torch.stack(sums, dim=1)  # type: ignore[arg-type]

    def weights(self) -> Mapping[str, Tensor]:
        maps = {f"projections.{name}.weight": getattr(self, name).weight for name in ("query", "key", "value")}
        return {**maps, "conv": self.taps, "out.weight": self.out.weight}


def kernel(q: Tensor, k: Tensor) -> Tensor:
    scores = torch.exp(q @ k.T / q.shape[-1] ** 0.5)
    return scores / scores.sum(-1, keepdim=True)
