"""Softmax attention written out: one token at a time, over the tokens that it sees."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.equations import rotated
from tests.mixers.reference import Reference


class MaskedAttention(Reference):
    """softmax_j(q_i·k_j / √k) v_j over the j with `sees(i, j)`: Vaswani et al. 2017, equation 1.

    Queries and keys are normalised first (Henry et al. 2020), then rotated (Su et al. 2021).
    """

    lengths = (1, 7, 33, 91)

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        heads: int = 4,
        kv_heads: int | None = None,
        rope: float | None = 10000.0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__(width=width)
        self.causal, self.heads, self.kv_heads, self.rope = causal, heads, kv_heads or heads, rope
        self.each = width // heads
        self.w_q = nn.Parameter(torch.randn(heads, self.each, width) / width**0.5)
        self.w_k = nn.Parameter(torch.randn(self.kv_heads, self.each, width) / width**0.5)
        self.w_v = nn.Parameter(torch.randn(self.kv_heads, self.each, width) / width**0.5)
        self.w_o = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.scales = nn.Parameter(torch.ones(2, self.each)) if qk_norm else None

    def sees(self, i: int, j: int) -> bool:
        """Return whether token i sees token j."""
        raise NotImplementedError

    def visible(self, q: Tensor, k: Tensor) -> Tensor:
        """Return which tokens each token sees, b h t t, or 1 1 t t if b and h do not matter."""
        t = q.shape[2]
        return torch.tensor([[[[self.sees(i, j) for j in range(t)] for i in range(t)]]])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(x)
        return self.written(attended(q, k, v, self.visible(q, k)))

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return them as b h t k, with the keys and values of a group of heads repeated."""
        q, k, v = (torch.einsum("hkd,btd->bhtk", w, x) for w in (self.w_q, self.w_k, self.w_v))
        if self.scales is not None:
            q, k = (
                y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale
                for y, scale in zip((q, k), self.scales, strict=True)
            )
        if self.rope is not None:
            q, k = (torch.stack([rotated(head, self.rope) for head in y.unbind(1)], dim=1) for y in (q, k))
        groups = [head * self.kv_heads // self.heads for head in range(self.heads)]
        return q, k[:, groups], v[:, groups]

    def written(self, o: Tensor) -> Tensor:
        """Return the outputs of all heads, b h t k, mapped to the width."""
        return torch.cat(o.unbind(1), dim=-1) @ self.w_o.mT

    def weights(self) -> Mapping[str, Tensor]:
        maps = {"query": self.w_q, "key": self.w_k, "value": self.w_v}
        norms = {} if self.scales is None else {"query": self.scales[0], "key": self.scales[1]}
        return {
            **{f"projections.{name}.weight": each.flatten(0, 1) for name, each in maps.items()},
            **{f"projections.{name}_norm.scale": each for name, each in norms.items()},
            "out.weight": self.w_o,
        }


def attended(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, factors: Tensor | None = None) -> Tensor:
    """Attend from one token after the other to what it sees; zeros if that is nothing.

    `factors`, b h t, multiply the exponentials of each key.
    """
    outputs = []
    for i in range(q.shape[2]):
        weights = torch.exp((k * q[:, :, i, None]).sum(-1) / q.shape[-1] ** 0.5) * visible[:, :, i]
        weights = weights if factors is None else weights * factors
        total = weights.sum(-1, keepdim=True)
        outputs.append((weights[..., None] * v).sum(2) / torch.where(total == 0, 1, total))
    return torch.stack(outputs, dim=2)
