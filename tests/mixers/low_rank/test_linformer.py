"""Linformer and its causal form: bad values, initialisation, state."""

import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.base import Mixer, state_bytes
from hybridlab.mixers.low_rank.linformer import Linformer
from hybridlab.mixers.low_rank.linformer_causal import LinformerCausal


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Linformer, {"heads": 5}, "heads=5: must divide the width, 64"),
        (Linformer, {"rank": 0}, "rank=0: must be a whole number of at least 1"),
        (LinformerCausal, {"heads": 5}, "heads=5: must divide the width, 64"),
        (LinformerCausal, {"block": 0}, "block=0: must be a whole number of at least 1"),
        (LinformerCausal, {"rope": 0.0}, "rope=0.0: must be a number above 0, or null: no positions"),
        (
            LinformerCausal,
            {"heads": 64},
            "rope=10000.0: needs an even head width, not 1, or null: no positions",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=64, **settings)


def test_linformer_starts_with_sums_of_the_size_of_their_terms_and_keeps_them() -> None:
    torch.manual_seed(0)
    mixer = Linformer(width=64)
    for table in (mixer.key_sums, mixer.value_sums):
        assert table.shape == (512, 128)
        assert table.std().item() == pytest.approx(512**-0.5, rel=0.02)
        assert (table.takes_weight_decay, table.takes_initialisation) == (True, False)  # type: ignore[attr-defined]


def test_linformer_causal_starts_with_norms_that_take_no_decay() -> None:
    tagged = {
        name: (parameter.takes_weight_decay, parameter.takes_initialisation)
        for name, parameter in LinformerCausal(width=64).named_parameters()
        if hasattr(parameter, "takes_weight_decay")
    }
    assert tagged == {
        f"{norm}.{name}": (False, True) for norm in ("slot_norm", "window_norm") for name in ("weight", "bias")
    }


@torch.no_grad()
def test_the_causal_state_grows_by_slots_alone() -> None:
    mixer = LinformerCausal(width=64, block=16, rank=2)
    x = torch.randn(1, 160, 64)
    sizes = [state_bytes(mixer.extend(x[:, :t], mixer.initial_state(1, x))[1]) for t in (32, 48, 160)]
    # Two keys and two values of the whole width for each block of 16.
    assert [later - sizes[0] for later in sizes] == [0, 4 * 64 * 4, 8 * 4 * 64 * 4]
