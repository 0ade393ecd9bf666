"""The layer around the three branches of native sparse attention."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.mixers.equations import gelu, rotated
from tests.mixers.reference import Reference


class Branches(NamedTuple):
    """Queries, rotated queries, and keys and values of each branch; keys and values b g t k."""

    q: Tensor
    turned: Tensor
    compressed: tuple[Tensor, Tensor]
    selected: tuple[Tensor, Tensor]
    window: tuple[Tensor, Tensor]


class NsaLayer(Reference):
    """o_t = Σ_c g_t^c Attention(q_t, K^c, V^c): Yuan et al. 2025, equations 4 and 5.

    A subclass attends in the three branches.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        kv_heads: int,
        compress_block: int,
        compress_stride: int,
        select_block: int,
        top_k: int,
        window: int,
        rope: float | None,
    ) -> None:
        super().__init__(width=width)
        self.heads, self.groups, self.each, self.rope = heads, kv_heads, width // heads, rope
        self.length, self.stride, self.block = compress_block, compress_stride, select_block
        self.top_k, self.latest = top_k, window
        self.w_q = nn.Parameter(torch.randn(heads, self.each, width) / width**0.5)
        self.w_k, self.w_v = (nn.Parameter(torch.randn(3, kv_heads, self.each, width) / width**0.5) for _ in range(2))
        self.w_gate = nn.Parameter(torch.randn(heads, 3, width) / width**0.5)
        self.w_o = nn.Parameter(torch.randn(width, width) / width**0.5)
        # The map φ of the keys and of the values of a block to one of each, equation 7.
        self.positions = nn.Parameter(torch.randn(2, compress_block, self.each) / compress_block)
        self.inner, self.outer = (nn.Parameter(torch.randn(2, self.each, self.each) / 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q = torch.einsum("hkd,btd->bhtk", self.w_q, x)
        keys, values = (torch.einsum("cgkd,btd->cbgtk", w, x) for w in (self.w_k, self.w_v))
        compressed = self.compressed(keys[0], 0), self.compressed(values[0], 1)
        turned, *turned_keys = (self.turned(y) for y in (q, keys[1], keys[2]))
        gates = 1 / (1 + torch.exp(-torch.einsum("hcd,btd->cbht", self.w_gate, x)))
        outputs = self.branches(
            Branches(q, turned, compressed, (turned_keys[0], values[1]), (turned_keys[1], values[2]))
        )
        o = sum(gate[..., None] * output for gate, output in zip(gates, outputs, strict=True))
        return torch.cat(o.unbind(1), dim=-1) @ self.w_o.mT  # type: ignore[union-attr]

    def branches(self, of: Branches) -> tuple[Tensor, Tensor, Tensor]:
        """Return the outputs of the compressed, the selected and the window branch, b h t k."""
        raise NotImplementedError

    def compressed(self, y: Tensor, which: int) -> Tensor:
        """Return φ of each whole block, b g m k: z + W₂ GELU(W₁ z) with z a sum over positions."""
        blocks = [
            sum(self.positions[which, j] * y[:, :, start + j] for j in range(self.length))
            for start in range(0, y.shape[2] - self.length + 1, self.stride)
        ]
        if not blocks:
            return y[:, :, :0]
        z = torch.stack(blocks, dim=2)  # type: ignore[arg-type]
        inner = z @ self.inner[which].mT
        return z + gelu(inner) @ self.outer[which].mT

    def turned(self, y: Tensor) -> Tensor:
        """Rotate each head by its rotary positions."""
        return y if self.rope is None else torch.stack([rotated(head, self.rope) for head in y.unbind(1)], dim=1)

    def repeated(self, y: Tensor) -> Tensor:
        """Repeat the keys or values of each group for every head of it."""
        return y[:, [head * self.groups // self.heads for head in range(self.heads)]]

    def weights(self) -> Mapping[str, Tensor]:
        of_others: list[Any] = [self.w_k[1], self.w_v[1], self.w_k[2], self.w_v[2]]
        parts = {
            f"{name}_compression.{part}": each[i]
            for i, name in enumerate(("key", "value"))
            for part, each in (
                ("weight", self.positions),
                ("inner.weight", self.inner),
                ("outer.weight", self.outer),
            )
        }
        return {
            **parts,
            "projections.query.weight": self.w_q.flatten(0, 1),
            "projections.key.weight": self.w_k[0].flatten(0, 1),
            "projections.value.weight": self.w_v[0].flatten(0, 1),
            "branches.weight": torch.cat([each.flatten(0, 1) for each in of_others]),
            "gates.weight": self.w_gate.flatten(0, 1),
            "out.weight": self.w_o,
        }
