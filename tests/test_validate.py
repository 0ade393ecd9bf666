"""Checks of single settings."""

import re

import pytest

from hybridlab.errors import ConfigError
from hybridlab.validate import divides, power_of_two, whole


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_powers_of_two_pass(chunk: int) -> None:
    power_of_two(chunk=chunk)


@pytest.mark.parametrize("chunk", [0, -1, -8, 3, 48, True, 16.0])
def test_other_chunks_are_refused(chunk: object) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'chunk={str(chunk).lower()}: must be a power of two')}$"):
        power_of_two(chunk=chunk)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "many"])
def test_whole_numbers_only(value: object) -> None:
    spelt = str(value).lower()
    with pytest.raises(ConfigError, match=f"^{re.escape(f'heads={spelt}: must be a whole number of at least 1')}$"):
        whole(heads=value)


def test_divisors_only() -> None:
    divides(64, "the width", heads=4)
    with pytest.raises(ConfigError, match=r"^heads=5: must divide the width, 64$"):
        divides(64, "the width", heads=5)
