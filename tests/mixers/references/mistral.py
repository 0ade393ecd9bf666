"""Attention to a window of the latest tokens."""

from typing import Any

from torch import Tensor

from tests.mixers.rotary_layer import RotaryLayer


class Mistral(RotaryLayer):
    mixer = "sliding"
    source = "`MistralAttention` under `sliding_window_causal_mask_function`"
    module, name = "mistral", "Mistral"
    choices = "nothing"
    cases = (
        {"heads": 4, "kv_heads": 2, "window": 5, "rope": 10000.0},
        {"heads": 4, "window": 64, "rope": 10000.0},
        {"heads": 4, "window": 2, "rope": 10000.0},
    )

    def __init__(self, *, window: int, **settings: Any) -> None:
        super().__init__(sliding_window=window, **settings)
        self.window = window

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        from transformers.masking_utils import sliding_window_causal_mask_function

        return sliding_window_causal_mask_function(self.window)(0, 0, query, key)
