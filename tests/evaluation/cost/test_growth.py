"""What a training step costs, where it can be told by hand."""

import pytest
import torch
from torch import Tensor, nn

from hybridlab.evaluation.cost.growth import training_cost
from hybridlab.mixers.base import Mixer
from hybridlab.mixers.conv.short_conv import ShortConv

WIDTH, TOKENS = 16, 100


@pytest.mark.parametrize("taps", [3, 20])  # by an operator of ours and by PyTorch's convolution
def test_each_gradient_of_a_convolution_costs_what_it_costs_itself(taps: int) -> None:
    with torch.device("meta"):
        one, several = (ShortConv(width=WIDTH, conv_size=kernel) for kernel in (1, taps))
        apart = training_cost(several, WIDTH, TOKENS).flops - training_cost(one, WIDTH, TOKENS).flops
    assert apart == 3 * 2 * TOKENS * WIDTH * (taps - 1)


class Upsampled(Mixer):
    """A transposed convolution of a user's mixer, of which every fourth result is kept."""

    causal = False

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose1d(WIDTH, WIDTH, 4, stride=4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x.mT)[..., ::4].mT


def test_transposed_convolutions_are_counted_by_what_they_read() -> None:
    with torch.device("meta"):
        assert training_cost(Upsampled(), WIDTH, TOKENS).flops == 3 * 2 * TOKENS * WIDTH * WIDTH * 4
