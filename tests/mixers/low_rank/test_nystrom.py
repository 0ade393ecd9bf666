"""Nyströmformer and its causal form: bad values, initialisation."""

import math
import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.low_rank.nystrom import Nystrom
from hybridlab.mixers.low_rank.nystrom_causal import NystromCausal


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Nystrom, {"heads": 5}, "heads=5: must divide the width, 64"),
        (Nystrom, {"landmarks": 0}, "landmarks=0: must be a whole number of at least 1"),
        (Nystrom, {"conv_size": 4}, "conv_size=4: must be odd: as many taps before a token as after it"),
        (NystromCausal, {"heads": 5}, "heads=5: must divide the width, 64"),
        (NystromCausal, {"block": 0}, "block=0: must be a whole number of at least 1"),
        (NystromCausal, {"ridge": 0.0}, "ridge=0.0: must be a number of at least 1e-05"),
        (NystromCausal, {"ridge": math.nan}, "ridge=nan: must be a number of at least 1e-05"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=64, **settings)


def test_nystrom_keeps_the_filters_it_starts_with() -> None:
    torch.manual_seed(0)
    conv = Nystrom(width=64).conv
    assert conv.shape == (4, 33)
    assert 0.9 * 33**-0.5 < conv.abs().max() <= 33**-0.5
    assert (conv.takes_weight_decay, conv.takes_initialisation) == (True, False)  # type: ignore[attr-defined]
