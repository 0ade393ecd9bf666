"""Attention to a window on both sides, with rotary positions."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.mixers.rotary_layer import RotaryLayer


class ModernBert(RotaryLayer):
    mixer = "sliding"
    source = "`ModernBertAttention` under `sliding_window_bidirectional_mask_function`"
    module, name = "modernbert", "ModernBert"
    choices = "nothing"
    cases = ({"heads": 4, "window": 6, "rope": 10000.0, "causal": False},)

    def __init__(self, *, window: int, **settings: Any) -> None:
        super().__init__(layer_types=["sliding_attention"], num_hidden_layers=1, attention_dropout=0.0, **settings)
        self.window = window

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        from transformers.masking_utils import sliding_window_bidirectional_mask_function

        return sliding_window_bidirectional_mask_function(self.window - 1)(0, 0, query, key)

    def weights(self) -> Mapping[str, Tensor]:
        names = (f"projections.{name}.weight" for name in ("query", "key", "value"))
        return {**dict(zip(names, self.layer.Wqkv.weight.chunk(3), strict=True)), "out.weight": self.layer.Wo.weight}
