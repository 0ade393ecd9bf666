"""Full attention with normalised queries and keys: Qwen3's layer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.mixers.reference import Reference
from tests.mixers.rotary_table import rotary_table


class Qwen3(Reference):
    mixer = "full"
    source = "`Qwen3Attention`"
    package = "transformers"
    choices = "nothing"
    cases = (
        {"heads": 4, "kv_heads": 2, "qk_norm": True, "rope": 10000.0},
        {"heads": 2, "kv_heads": 2, "qk_norm": True, "rope": 100.0},
    )

    def __init__(self, *, width: int, heads: int, kv_heads: int, qk_norm: bool, rope: float) -> None:
        super().__init__(width=width)
        from transformers.models.qwen3 import modeling_qwen3

        sizes: dict[str, Any] = {
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": width // heads,
        }
        config = modeling_qwen3.Qwen3Config(hidden_size=width, attn_implementation="eager", **sizes)
        self.layer = modeling_qwen3.Qwen3Attention(config, layer_idx=0)
        self.rope, self.head_width = rope, width // heads

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        ahead = x.new_full((t, t), -torch.inf).triu(1)
        return self.layer(x, rotary_table(t, self.head_width, self.rope), ahead)[0]

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "projections.query.weight": self.layer.q_proj.weight,
            "projections.key.weight": self.layer.k_proj.weight,
            "projections.value.weight": self.layer.v_proj.weight,
            "projections.query_norm.scale": self.layer.q_norm.weight,
            "projections.key_norm.scale": self.layer.k_norm.weight,
            "out.weight": self.layer.o_proj.weight,
        }
