"""Attention to a window and to the first tokens, as a mask."""

from typing import Any

from tests.mixers.masked_attention import MaskedAttention


class SlidingWindow(MaskedAttention):
    mixer = "sliding"
    source = "2004.05150, section 3.1; causal with first tokens: 2309.17453, section 3.2"
    choices = (
        "positions are absolute, and rotary; Longformer learns them, StreamingLLM counts those in its cache; "
        "global tokens have no projections of their own"
    )
    cases = (
        {"window": 1, "global_tokens": 2},
        {"window": 5, "global_tokens": 1, "heads": 2, "causal": False},
        {"window": 5, "global_tokens": 3, "kv_heads": 2, "qk_norm": True},
        {"window": 40, "global_tokens": 30, "rope": None},
        {"window": 40, "global_tokens": 30, "kv_heads": 1, "qk_norm": True, "causal": False},
        {"window": 300, "global_tokens": 2},
    )

    def __init__(self, *, window: int, global_tokens: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.window, self.first = window, global_tokens

    def sees(self, i: int, j: int) -> bool:
        if self.causal:
            return j <= i and (i - j < self.window or j < self.first)
        return abs(i - j) < self.window or j < self.first or i < self.first
