"""Outputs that depend on later inputs, each in another way."""

import pytest
import torch

from hybridlab.evaluation.leak import Kind
from tests.evaluation.leak.planted import Honest, both, leak_of


class NextToken(Honest):
    """The next token shifts in."""

    def leak(self, x):
        return torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)


class RollByOne(Honest):
    """A roll wraps the last token around to the first."""

    def leak(self, x):
        return x.roll(1, dims=1)


class CircularConvolution(Honest):
    """A filter in the frequency domain, without padding."""

    def leak(self, x):
        spectrum = torch.fft.rfft(x, dim=1)
        gain = torch.linspace(1, 0.5, spectrum.shape[1], dtype=x.dtype)[:, None]
        return torch.fft.irfft(spectrum * gain, n=x.shape[1], dim=1)


class LastIntoFirst(Honest):
    """The first position alone sees the last token."""

    def leak(self, x):
        y = torch.zeros_like(x)
        y[:, 0] = x[:, -1]
        return y


class SinglePosition(Honest):
    """Position 40 alone sees the token after it."""

    def leak(self, x):
        y = torch.zeros_like(x)
        y[:, 40:41] = x[:, 41:42]
        return y


class SinglePositionOfOneChannel(Honest):
    """One number of one position sees one number of the next token."""

    def leak(self, x):
        y = torch.zeros_like(x)
        y[:, 29:30, 3] = 0.01 * x[:, 30:31, 5]
        return y


class GlobalNorm(Honest):
    """Normalised by the standard deviation over time."""

    def leak(self, x):
        return x / (1 + x.std(1, keepdim=True, correction=0))


class Maximum(Honest):
    """A stabiliser over the whole sequence."""

    def leak(self, x):
        return torch.exp(x - x.amax(dim=(1, 2), keepdim=True)) + 1e-4


class ArgmaxToken(Honest):
    """The token of the largest score is copied to all; no gradient reaches the score."""

    def leak(self, x):
        at = x[..., 0].argmax(1)
        return x[torch.arange(len(x)), at][:, None].expand_as(x)


class TopKOfSequence(Honest):
    """Only tokens among the four best of the sequence pass, as in expert choice."""

    def leak(self, x):
        kept = x[..., 0].topk(min(4, x.shape[1]), dim=1).indices
        return x * torch.zeros_like(x[..., 0]).scatter(1, kept, 1.0)[..., None]


class Ranks(Honest):
    """The rank of each token in the sorted sequence."""

    def leak(self, x):
        return x[..., :1].argsort(1).argsort(1).to(x.dtype).expand_as(x) / 100


class GroupNormOverTime(Honest):
    """A group norm of [b, d, t] takes its statistics over time."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.GroupNorm(4, self.width)

    def leak(self, x):
        return self.norm(x.mT).mT


class RelativePositions(Honest):
    """Positions divided by the length, which is knowledge of the future."""

    def leak(self, x):
        return torch.linspace(0, 1, x.shape[1], dtype=x.dtype)[None, :, None].expand_as(x)


class ReversedSum(Honest):
    """A cumulative sum from the end."""

    def leak(self, x):
        return 0.1 * x.flip(1).cumsum(1).flip(1)


class OneInAMillion(Honest):
    """A millionth of the mean of the sequence."""

    def leak(self, x):
        return 1e-6 * x.mean(1, keepdim=True).expand_as(x)


class ClosedGate(Honest):
    """The mean of the sequence, by a weight that starts at zero."""

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Parameter(torch.zeros(self.width))

    def leak(self, x):
        return self.gate * x.mean(1, keepdim=True)


class HalfPrecisionMaximum(Honest):
    """A leak through bfloat16 inside, where rounding is coarse."""

    def leak(self, x):
        return x.bfloat16().amax(1, keepdim=True).to(x.dtype).expand_as(x)


PLANTED = [
    NextToken,
    RollByOne,
    CircularConvolution,
    LastIntoFirst,
    SinglePosition,
    SinglePositionOfOneChannel,
    GlobalNorm,
    Maximum,
    ArgmaxToken,
    TopKOfSequence,
    Ranks,
    GroupNormOverTime,
    RelativePositions,
    ReversedSum,
    OneInAMillion,
    ClosedGate,
    HalfPrecisionMaximum,
]


@pytest.mark.parametrize("planted", both(PLANTED))
def test_an_output_that_sees_later_inputs_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind in (Kind.FUTURE, Kind.LENGTH)
    assert leak.position <= leak.cut < leak.length
    assert "sees the future" in str(leak)


@pytest.mark.parametrize(("planted", "position"), [(SinglePosition, 40), (SinglePositionOfOneChannel, 29)])
def test_the_position_is_named(planted, position):
    leak = leak_of(planted())
    assert leak is not None
    assert (leak.position, leak.cut) == (position, position)


@pytest.mark.parametrize("honest", both([Honest]))
def test_an_honest_mixer_passes(honest):
    assert leak_of(honest()) is None
