"""The encoding of positions against its formula, one value at a time."""

import math

import pytest

from hybridlab.ops.attention.sinusoidal_encoding import sinusoidal_encoding


@pytest.mark.parametrize(("length", "width"), [(1, 4), (40, 8), (7, 9), (3, 2), (2, 1)])
def test_it_is_sines_then_cosines_of_frequencies_from_one_to_a_ten_thousandth(length: int, width: int) -> None:
    half = width // 2
    for position, found in enumerate(sinusoidal_encoding(length, width).tolist()):
        angles = [position * 10000 ** -(index / max(half - 1, 1)) for index in range(half)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles] + [0.0] * (width % 2)
        assert found == pytest.approx(expected, abs=1e-12)
