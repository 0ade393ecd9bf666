"""Layers of transformers with rotary attention: they differ in names and in what they see."""

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tests.mixers.reference import Reference


class RotaryLayer(Reference):
    """`<name>Attention` of `transformers.models.<module>`, with a mask and positions as its model
    makes them; only the angles, which the model computes in float32, are in float64 here."""

    package = "transformers"
    module: ClassVar[str]
    name: ClassVar[str]

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        rope: float | None,
        kv_heads: int | None = None,
        causal: bool = True,
        **sizes: Any,
    ) -> None:
        super().__init__(width=width)
        self.modeling = importlib.import_module(f"transformers.models.{self.module}.modeling_{self.module}")
        sizes = {"num_key_value_heads": kv_heads or heads, "head_dim": width // heads, **sizes}
        config = getattr(self.modeling, f"{self.name}Config")(
            hidden_size=width, num_attention_heads=heads, attn_implementation="eager", **sizes
        )
        self.layer = getattr(self.modeling, f"{self.name}Attention")(config, layer_idx=0)
        self.rope, self.head_width, self.causal = rope, width // heads, causal

    def forward(self, x: Tensor) -> Tensor:
        at = torch.arange(x.shape[1], device=x.device)
        visible = self.sees(at[:, None], at[None])
        mask = x.new_zeros(visible.shape).masked_fill(~visible, -torch.inf)
        positions = tuple(each.to(x) for each in self.positions(x.shape[1]))
        return self.layer(x, position_embeddings=positions, attention_mask=mask)[0]

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the mask of the positions of queries and keys."""
        return (key <= query) | (not self.causal)

    def positions(self, t: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, 1 t k: the angles of each half of a head are the same."""
        powers = -torch.arange(0, self.head_width, 2, dtype=torch.float64) / self.head_width
        speeds = torch.zeros_like(powers) if self.rope is None else self.rope**powers
        angles = torch.arange(t, dtype=torch.float64)[:, None] * speeds
        angles = torch.cat([angles, angles], dim=-1)[None]
        return angles.cos(), angles.sin()

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "projections.query.weight": self.layer.q_proj.weight,
            "projections.key.weight": self.layer.k_proj.weight,
            "projections.value.weight": self.layer.v_proj.weight,
            "out.weight": self.layer.o_proj.weight,
        }
