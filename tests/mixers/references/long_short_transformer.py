"""Long-Short Transformer's causal attention, one query at a time."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.reference import Reference


class LongShortTransformer(Reference):
    """Section 3 of 2107.02192: dynamic projections of finished blocks, a window, DualLN."""

    mixer = "linformer_causal"
    source = "2107.02192, section 3"
    choices = (
        "rotary positions, there learned relative ones; the window reaches back a whole block, there half; no biases"
    )
    cases = (
        {"heads": 2, "block": 8, "rank": 2},
        {"heads": 4, "block": 5, "rank": 1, "rope": 100.0},
        {"heads": 2, "block": 16, "rank": 3, "rope": None},
        {"heads": 2, "block": 2, "rank": 3},
    )

    lengths = (1, 7, 33, 50)

    def __init__(self, *, width: int, heads: int, block: int, rank: int, rope: float | None = 10000.0) -> None:
        super().__init__(width=width)
        self.heads, self.block, self.rank, self.rope = heads, block, rank, rope
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.projection = nn.Linear(width, heads * rank, bias=False)
        self.norm_of_slots, self.norm_of_window = (nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.query(x), self.key(x), self.value(x)
        slots: list[tuple[Tensor, Tensor]] = []
        outputs = []
        for now in range(x.shape[1]):
            own = now // self.block
            if now % self.block == 0 and own > 0:
                block = slice(now - self.block, now)
                slots += self.compress(x[:, block], keys[:, block], values[:, block], now - 1)
            seen = range(max(0, own - 1) * self.block, now + 1)
            k = [*(k for k, _ in slots), *(self.turn(self.split(self.norm_of_window(keys[:, j])), j) for j in seen)]
            v = [*(v for _, v in slots), *(self.split(self.norm_of_window(values[:, j])) for j in seen)]
            k, v = torch.stack(k, dim=2), torch.stack(v, dim=2)  # b h seen k
            q = self.turn(self.split(queries[:, now]), now)
            scores = (q[:, :, None] * k).sum(-1) / q.shape[-1] ** 0.5
            outputs.append((scores.softmax(-1)[..., None] * v).sum(2).flatten(1))
        return self.out(torch.stack(outputs, dim=1))

    def compress(self, x: Tensor, keys: Tensor, values: Tensor, end: int) -> list[tuple[Tensor, Tensor]]:
        """Return keys and values of the slots of a block, b h k each; their position is its end."""
        shares = self.projection(x).unflatten(-1, (self.heads, self.rank)).softmax(1)
        slots = []
        for number in range(self.rank):
            k, v = (
                self.norm_of_slots((shares[..., number, None] * each.unflatten(-1, (self.heads, -1))).sum(1).flatten(1))
                for each in (keys, values)
            )
            slots.append((self.turn(self.split(k), end), self.split(v)))
        return slots

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def turn(self, x: Tensor, position: int) -> Tensor:
        if self.rope is None:
            return x
        real, imaginary = x.chunk(2, dim=-1)
        channel = torch.arange(real.shape[-1], dtype=x.dtype, device=x.device)
        angle = position * self.rope ** (-channel / real.shape[-1])
        turned = torch.complex(real, imaginary) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([turned.real, turned.imag], dim=-1)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "projections.query.weight": self.query.weight,
            "projections.key.weight": self.key.weight,
            "projections.value.weight": self.value.weight,
            "scores.weight": self.projection.weight,
            "slot_norm.weight": self.norm_of_slots.weight,
            "slot_norm.bias": self.norm_of_slots.bias,
            "window_norm.weight": self.norm_of_window.weight,
            "window_norm.bias": self.norm_of_window.bias,
            "out.weight": self.out.weight,
        }
