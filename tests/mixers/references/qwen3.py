"""Full attention with normalised queries and keys."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.mixers.rotary_layer import RotaryLayer


class Qwen3(RotaryLayer):
    mixer = "full"
    source = "`Qwen3Attention`"
    module, name = "qwen3", "Qwen3"
    choices = "nothing"
    cases = (
        {"heads": 4, "kv_heads": 2, "qk_norm": True, "rope": 10000.0},
        {"heads": 2, "qk_norm": True, "rope": 100.0, "causal": False},
    )

    def __init__(self, *, qk_norm: bool, **settings: Any) -> None:
        super().__init__(**settings)

    def weights(self) -> Mapping[str, Tensor]:
        norms = {"query_norm": self.layer.q_norm, "key_norm": self.layer.k_norm}
        return {**super().weights(), **{f"projections.{name}.scale": norm.weight for name, norm in norms.items()}}
