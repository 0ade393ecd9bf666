"""Checks of single settings."""

import re

import pytest

from hybridlab.errors import ConfigError
from hybridlab.validate import power_of_two


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_powers_of_two_pass(chunk: int) -> None:
    power_of_two(chunk=chunk)


@pytest.mark.parametrize("chunk", [0, -1, -8, 3, 48, True, 16.0])
def test_other_chunks_are_refused(chunk: object) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'chunk={str(chunk).lower()}: must be a power of two')}$"):
        power_of_two(chunk=chunk)
