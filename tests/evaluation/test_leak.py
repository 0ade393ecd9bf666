"""The leak gate finds planted leaks, and nothing else."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak import Kind, check_plan, check_trained, mixer_leak, refuse, stack_leak
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
SHORT = (1, 2, 7, 33, 65)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_leak_is_found_and_named(planted):
    leak = mixer_leak(planted(width=WIDTH), WIDTH, SHORT)
    assert leak is not None
    assert leak.position <= leak.cut < leak.length
    with pytest.raises(ConfigError, match=re.escape(f"mixer `x` {leak}")):
        refuse(leak, "mixer `x`")
    assert re.search("sees the future: in a sequence of .* (changing|leaving out) the inputs after position", str(leak))


@pytest.mark.parametrize("planted", PLANTED)
def test_a_leak_of_one_layer_is_found_in_the_whole_stack(planted, tmp_path):
    (tmp_path / "planted.yaml").write_text(f"_target_: {__name__}.{planted.__name__}\n")
    files = {**mixer_files(), "planted": tmp_path / "planted.yaml"}
    plan = expand({"width": WIDTH, "groups": {"all": {"mixer": "planted gated_conv"}}}, {}, files)
    stack = Stack(plan, vocabulary=11)
    with pytest.raises(ConfigError, match="mixer `planted`"):
        check_plan(plan, stack, task_length=64)
    assert stack_leak(stack, (7, 33, 65)) is not None


@pytest.mark.parametrize("name", sorted(mixer_files()))
def test_our_mixers_pass_if_they_say_so(name):
    settings = OmegaConf.load(mixer_files()[name])
    mixer = instantiate(settings, width=WIDTH)
    leak = mixer_leak(mixer, WIDTH, SHORT)
    assert (leak is None) == mixer.causal


def test_a_numerically_explosive_output_is_said_to_be_no_number():
    class Explodes(Planted):
        def forward(self, x):
            return torch.exp(1e4 * x)

    leak = mixer_leak(Explodes(width=WIDTH), WIDTH, (7,))
    assert leak is not None
    assert leak.kind is Kind.NOT_FINITE
    assert "NaN or infinity" in str(leak)


def test_the_gate_leaves_the_stack_and_the_random_state_alone():
    plan = expand({"width": 16, "groups": {"all": {"mixer": {"name": "full", "heads": 2}}}}, {}, mixer_files())
    stack = Stack(plan, vocabulary=11)
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    check_plan(plan, stack, 20, precision="bf16-mixed", packed=True)
    check_trained(plan, stack, 20)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert stack.training
    assert torch.get_default_dtype() == torch.float32
    assert all(torch.equal(before[name], value) for name, value in stack.state_dict().items())
