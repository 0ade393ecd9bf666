"""Mixers with a fixed attention pattern: states, seeds and bad values."""

import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.base import Mixer, state_bytes
from hybridlab.mixers.sparse.bigbird import Bigbird
from hybridlab.mixers.sparse.dilated import Dilated
from hybridlab.mixers.sparse.sliding import Sliding
from hybridlab.mixers.sparse.strided import Strided
from tests.mixers.subject import in_chunks


@pytest.mark.parametrize(
    ("mixer", "most"),
    [(Sliding(width=64, window=20, global_tokens=3), 22), (Dilated(width=64, window=6, dilation=5), 25)],
    ids=["sliding with global tokens", "dilated"],
)
@torch.no_grad()
def test_chunks_give_what_the_whole_gives_within_a_bounded_state(mixer: Mixer, most: int) -> None:
    torch.manual_seed(0)
    mixer, x = mixer.double(), torch.randn(2, 130, 64, dtype=torch.float64)
    for sizes in ([1] * 130, [2, 1, 30, 1, 50, 46], [22, 23, 85], [130]):
        y, state = in_chunks(mixer, x, sizes)
        torch.testing.assert_close(y, mixer(x), rtol=1e-9, atol=1e-9)
        assert state.keys.shape[2] == most
        assert state_bytes(state) == 2 * 2 * most * 64 * 8 + 2 * 8


@torch.no_grad()
def test_bigbird_sees_the_same_blocks_at_any_length() -> None:
    mixer = Bigbird(width=64, block=4, seed=9).double()
    x = torch.randn(1, 200, 64, dtype=torch.float64)
    for t in (1, 50, 101, 199):
        torch.testing.assert_close(mixer(x[:, :t]), mixer(x)[:, :t], rtol=1e-9, atol=1e-9)


def test_bigbird_draws_its_seed_once_and_saves_it() -> None:
    torch.manual_seed(0)
    first, second = Bigbird(width=64), Bigbird(width=64)
    torch.manual_seed(0)
    assert torch.equal(first.seed, Bigbird(width=64).seed)
    assert not torch.equal(first.seed, second.seed)
    assert "seed" in first.state_dict()
    assert Bigbird(width=64, seed=7).seed.item() == 7


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Sliding, {"global_tokens": -1}, "global_tokens=-1: must be a whole number of at least 0"),
        (Dilated, {"dilation": 0}, "dilation=0: must be a whole number of at least 1"),
        (Dilated, {"window": 0}, "window=0: must be a whole number of at least 1"),
        (Strided, {"stride": 0}, "stride=0: must be a whole number of at least 1"),
        (Bigbird, {"random_blocks": 0}, "random_blocks=0: must be a whole number of at least 1"),
        (Bigbird, {"seed": -1}, "seed=-1: must be a whole number from 0 to 4294967295, or null: drawn"),
        (
            Bigbird,
            {"seed": 2**32},
            "seed=4294967296: must be a whole number from 0 to 4294967295, or null: drawn",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=64, **settings)
