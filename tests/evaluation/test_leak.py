"""The leak gate finds planted leaks, and nothing else."""

import re

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak import LENGTHS, check_plan, mixer_leak, probe_lengths, refuse, stack_leak
from hybridlab.mixers.base import Mixer
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand

WIDTH = 64


class Planted(Mixer):
    kind = "full"
    paper = "none"
    bounded_state = False

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.project = torch.nn.Linear(width, width)


class BlockMeans(Planted):
    """Every token sees the mean of its block of 16, which is not over yet."""

    def forward(self, x):
        b, t, d = x.shape
        blocks = F.pad(x, (0, 0, 0, -t % 16)).view(b, -1, 16, d)
        return self.project(x) + blocks.mean(2, keepdim=True).expand_as(blocks).reshape(b, -1, d)[:, :t]


class FrequencyFilter(Planted):
    """A filter in the frequency domain is a circular convolution: the end wraps to the start."""

    def forward(self, x):
        spectrum = torch.fft.rfft(self.project(x), dim=1)
        gain = torch.linspace(1, 0.5, spectrum.shape[1], dtype=x.dtype).unsqueeze(-1)
        return torch.fft.irfft(spectrum * gain, n=x.shape[1], dim=1)


class TopKOfFutureBlocks(Planted):
    """Block selection without a causal mask: queries pick later blocks; no gradient shows it."""

    def forward(self, x):
        b, t, d = x.shape
        keys = F.pad(x, (0, 0, 0, -t % 8)).view(b, -1, 8, d).mean(2)
        chosen = (self.project(x) @ keys.mT).topk(1, dim=-1).indices
        return x + (chosen > torch.arange(t).view(1, t, 1) // 8).to(x.dtype)


class SequenceMaximum(Planted):
    """A stabiliser taken over the whole sequence, as in some ports of Performer."""

    def forward(self, x):
        features = self.project(x)
        return torch.exp(features - features.amax(dim=(1, 2), keepdim=True)) + 1e-4


class BidirectionalConvolution(Planted):
    """A convolution with `same` padding looks one token ahead."""

    def __init__(self, *, width: int) -> None:
        super().__init__(width=width)
        self.convolution = torch.nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x):
        return self.convolution(x.mT).mT


class BatchStatistics(Planted):
    """Normalising over time leaks in training mode only."""

    def __init__(self, *, width: int) -> None:
        super().__init__(width=width)
        self.norm = torch.nn.BatchNorm1d(width)

    def forward(self, x):
        return self.norm(x.mT).mT if x.shape[1] > 1 else x


class ClosedGate(Planted):
    """A leak behind a gate that starts at zero."""

    def __init__(self, *, width: int) -> None:
        super().__init__(width=width)
        self.gate = torch.nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return x + self.gate * x.mean(1, keepdim=True)


PLANTED = (
    BlockMeans,
    FrequencyFilter,
    TopKOfFutureBlocks,
    SequenceMaximum,
    BidirectionalConvolution,
    BatchStatistics,
    ClosedGate,
)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_leak_is_found_and_named(planted):
    leak = mixer_leak(planted(width=WIDTH), WIDTH, LENGTHS)
    assert leak is not None
    assert leak.position <= leak.cut < leak.length
    message = (
        f"mixer `x` sees the future: in a sequence of {leak.length}, changing the inputs after position {leak.cut} "
        f"changed the output at position {leak.position}"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        refuse(leak, "mixer `x`")


@pytest.mark.parametrize("planted", PLANTED)
def test_a_leak_of_one_layer_is_found_in_the_whole_stack(planted, tmp_path):
    (tmp_path / "planted.yaml").write_text(f"_target_: {__name__}.{planted.__name__}\n")
    files = {**mixer_files(), "planted": tmp_path / "planted.yaml"}
    plan = expand({"width": WIDTH, "groups": {"all": {"mixer": "full planted gated_conv"}}}, {}, files)
    stack = Stack(plan, vocabulary=11)
    with pytest.raises(ConfigError, match="mixer `planted`"):
        check_plan(plan, stack, task_length=64)
    assert stack_leak(stack, (7, 33, 65)) is not None


@pytest.mark.parametrize("name", sorted(mixer_files()))
def test_our_mixers_pass_if_they_say_so(name):
    settings = OmegaConf.load(mixer_files()[name])
    mixer = instantiate(settings, width=WIDTH)
    leak = mixer_leak(mixer, WIDTH, probe_lengths(dict(settings), task_length=128))
    assert (leak is None) == mixer.causal


def test_a_numerically_explosive_output_counts_as_moved():
    class Explodes(Planted):
        def forward(self, x):
            return torch.exp(1e4 * x)

    assert mixer_leak(Explodes(width=WIDTH), WIDTH, (7,)) is not None


def test_the_probe_leaves_the_mixer_and_the_random_state_alone():
    mixer = BlockMeans(width=WIDTH)
    before = {name: value.clone() for name, value in mixer.state_dict().items()}
    state = torch.get_rng_state()
    mixer_leak(mixer, WIDTH, (7, 33))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in mixer.state_dict().items())


def test_lengths_are_probed_around_every_size_among_the_hyper_parameters():
    lengths = probe_lengths({"_target_": "x", "window": 40, "rope": 1e4, "gated": True}, task_length=100)
    assert {1, 7, 16, 33, 39, 40, 41, 81, 100} <= set(lengths)
