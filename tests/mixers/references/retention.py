"""RetNet's retention: flash-linear-attention's parallel form, and the paper's recurrence."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.fla_naive import naive
from tests.mixers.reference import Reference


class RetentionLayer(Reference):
    """Equations 5 to 8 of 2307.08621: positions, retention per head, a norm per head, a gate."""

    cases = (
        {"heads": 2, "expand_v": 2, "rope": 10000.0},
        {"heads": 4, "expand_v": 1, "rope": 100.0, "norm": "rms", "chunk": 24},
        {"heads": 1, "expand_v": 1, "rope": None},
    )

    def __init__(
        self, *, width: int, heads: int, expand_v: int, rope: float | None, norm: str = "layer", chunk: int = 64
    ) -> None:
        super().__init__(width=width)
        self.heads, self.rope, self.centred = heads, rope, norm == "layer"
        self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.value, self.gate = (nn.Linear(width, expand_v * width, bias=False) for _ in range(2))
        self.out = nn.Linear(expand_v * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        o = self.retain(self.turn(q), self.turn(k), v)
        if self.centred:
            o = o - o.mean(-1, keepdim=True)
        o = o / (o.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return self.out(F.silu(self.gate(x)) * o.transpose(1, 2).flatten(2))

    def turn(self, x: Tensor) -> Tensor:
        """Return complex numbers, of which channels i and i + k/2 are the parts, times exp(i n
        θ)."""
        real, imaginary = x.chunk(2, dim=-1)
        x = torch.complex(real, imaginary)
        if self.rope is None:
            return x
        angle = self.rope ** (-torch.arange(x.shape[-1], dtype=real.dtype, device=real.device) / x.shape[-1])
        angles = torch.arange(x.shape[2], dtype=real.dtype, device=real.device)[:, None] * angle
        return x * torch.polar(torch.ones_like(angles), angles)

    def retain(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def weights(self) -> Mapping[str, Tensor]:
        return {f"{name}.weight": getattr(self, name).weight for name in ("query", "key", "value", "gate", "out")}


class ParallelRetention(RetentionLayer):
    mixer = "retention"
    source = "`naive_retention` in the layer of 2307.08621"
    package = "fla-core"
    compared = "op"
    choices = "as below"

    def retain(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = (torch.cat([each.real, each.imag], dim=-1) for each in (q, k))
        return naive("retention/naive.py").naive_retention(q, k, v)


class RecurrentRetention(RetentionLayer):
    mixer = "retention"
    source = "2307.08621, equations 5 to 8"
    choices = (
        "angles are those of RoPE, in torchscale 10000^(-i / (k/2 - 1)) and neighbouring channels are pairs; "
        "without the division by max(|Σ_j|, 1), which the norm cancels"
    )

    def retain(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = torch.arange(self.heads, dtype=v.dtype, device=v.device)
        decay = (1 - 2 ** (-5 - heads))[:, None, None]
        state, outputs = torch.zeros_like(k[:, :, 0, :, None] * v[:, :, 0, None]), []
        for t in range(v.shape[2]):
            state = decay * state + k[:, :, t, :, None].conj() * v[:, :, t, None]
            outputs.append((q[:, :, t, :, None] * state).real.sum(-2))
        return torch.stack(outputs, dim=2) / (2 * q.shape[-1]) ** 0.5
