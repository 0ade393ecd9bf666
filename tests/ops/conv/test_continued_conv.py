"""A continued convolution against the convolution of the whole sequence."""

import pytest
import torch

from hybridlab.ops.conv.continued_conv import MIN_FFT_TOKENS, continued_conv
from hybridlab.ops.conv.fft_conv import direct_long_conv


@pytest.mark.parametrize("n", [1, 2, MIN_FFT_TOKENS - 1, MIN_FFT_TOKENS, 50])
@pytest.mark.parametrize("past", [0, 1, 5, 60])
@pytest.mark.parametrize("length", [1, 4, 30, 200])
def test_continued_convolution_matches_the_whole_sequence(n: int, past: int, length: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, past + n, 3, dtype=torch.float64)
    kernel = torch.randn(3, length, dtype=torch.float64)
    found = continued_conv(x[:, past:], x[:, :past], kernel)
    torch.testing.assert_close(found, direct_long_conv(x, kernel)[:, past:])
