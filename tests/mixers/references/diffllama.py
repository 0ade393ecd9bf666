"""Differential attention."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.mixers.rotary_layer import RotaryLayer

DEPTH = 3  # of the layer, on which theirs lets λ₀ depend
LAMBDA_INIT = 0.8 - 0.6 * 2.718281828459045 ** (-0.3 * DEPTH)


class DiffLlama(RotaryLayer):
    mixer = "differential"
    source = "`DiffLlamaAttention`"
    module, name = "diffllama", "DiffLlama"
    choices = (
        "λ₀ is a setting, theirs grows with the layer's depth; eps of the heads' norm 1e-5 as in the paper's code, "
        "and a learned scale"
    )
    cases = (
        {"heads": 4, "lambda_init": LAMBDA_INIT, "rope": 10000.0},
        {"heads": 1, "lambda_init": LAMBDA_INIT, "rope": 100.0, "causal": False},
        {"heads": 2, "lambda_init": LAMBDA_INIT, "rope": None},
    )

    def __init__(self, *, heads: int, lambda_init: float, **settings: Any) -> None:
        super().__init__(heads=2 * heads, rms_norm_eps=1e-5, **settings)
        self.layer.lambda_init = self.modeling.lambda_init_fn(DEPTH)
        self.order = torch.arange(2 * heads * self.head_width).unflatten(0, (2, heads, -1)).transpose(0, 1).flatten()

    def weights(self) -> Mapping[str, Tensor]:
        """Put both queries of a head side by side; there, the first of all heads come first."""
        theirs = super().weights()
        vectors = (getattr(self.layer, f"lambda_{name}") for name in ("q1", "k1", "q2", "k2"))
        return {
            **{name: each[self.order] for name, each in theirs.items() if name != "out.weight"},
            "vectors": torch.stack(list(vectors)),
            "norm": torch.ones(2 * self.head_width, dtype=self.dtype),
            "out.weight": theirs["out.weight"],
        }
