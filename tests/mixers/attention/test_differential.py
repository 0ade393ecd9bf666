"""Differential attention: initialisation and bad values."""

import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.attention.differential import Differential


def test_starts_with_lambda_near_its_first_value_and_tags_what_takes_no_decay() -> None:
    torch.manual_seed(0)
    mixer = Differential(width=4096, heads=4)
    assert mixer.vectors.std().item() == pytest.approx(0.1, rel=0.05)
    for parameter in (mixer.vectors, mixer.norm):
        assert not parameter.takes_weight_decay  # type: ignore[attr-defined]
        assert not parameter.takes_initialisation  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("width", "settings", "message"),
    [
        (64, {"heads": 0}, "heads=0: must be a whole number of at least 1"),
        (12, {"heads": 4}, "heads=4: has two queries per head; 2·heads must divide the width, 12"),
        (64, {"lambda_init": 1.0}, "lambda_init=1.0: must be a number of at least 0 and below 1"),
        (64, {"lambda_init": -0.1}, "lambda_init=-0.1: must be a number of at least 0 and below 1"),
        (8, {}, "rope=10000.0: needs an even head width, not 1, or null: no positions"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(width: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Differential(width=width, **settings)
