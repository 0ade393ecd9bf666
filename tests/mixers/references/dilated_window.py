"""Attention to a window with gaps, as a mask."""

from typing import Any

from tests.mixers.masked_attention import MaskedAttention


class DilatedWindow(MaskedAttention):
    mixer = "dilated"
    source = "2004.05150, section 3.1, dilated sliding window"
    choices = "one dilation for all heads; the paper gives some heads none"
    cases = (
        {"window": 2, "dilation": 3},
        {"window": 5, "dilation": 1, "heads": 2, "causal": False},
        {"window": 5, "dilation": 4, "kv_heads": 2, "qk_norm": True},
        {"window": 20, "dilation": 7, "rope": None, "causal": False},
        {"window": 3, "dilation": 60},
    )

    def __init__(self, *, window: int, dilation: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.window, self.dilation = window, dilation

    def sees(self, i: int, j: int) -> bool:
        behind = {i - step * self.dilation for step in range(self.window)}
        ahead = {i + step * self.dilation for step in range(self.window)}
        return j in (behind if self.causal else behind | ahead)
