"""Channel mixers, which see one token at a time."""

import pytest
import torch
from torch import nn

from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak import check_plan
from tests.evaluation.leak.planted import Honest
from tests.evaluation.leak.stacks import stack_of


class Pointwise(nn.Module):
    def __init__(self, *, width):
        super().__init__()
        self.out = nn.Linear(width, width)

    def forward(self, x):
        return self.out(x)


class TokenShift(Pointwise):
    """Causal, although it is no function of one token."""

    def forward(self, x):
        return self.out(x - torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1))


class MixesTokens(Pointwise):
    """The two axes confused, as in an MLP-Mixer."""

    def forward(self, x):
        return self.out(x) + 0.1 * x.softmax(1)


class ExpertChoice(Pointwise):
    """Each expert takes its best tokens of the sequence, as in expert-choice routing."""

    def forward(self, x):
        kept = x[..., 0].topk(max(1, x.shape[1] // 2), dim=1).indices
        return self.out(x) * torch.zeros_like(x[..., 0]).scatter(1, kept, 1.0)[..., None]


class Capacity(Pointwise):
    """The best tokens of a batch, as a capacity limit drops the others."""

    def forward(self, x):
        return self.out(x) * (x[..., :1] >= x[..., 0].median())


class NextTokenAtOnePosition(Pointwise):
    def forward(self, x):
        y = self.out(x)
        if x.shape[1] > 22:
            y = y + 0
            y[:, 21] += x[:, 22]
        return y


class BatchNormInTraining(Pointwise):
    def __init__(self, *, width):
        super().__init__(width=width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        return self.norm(self.out(x).mT).mT


@pytest.mark.parametrize("planted", [MixesTokens, ExpertChoice, Capacity, NextTokenAtOnePosition, BatchNormInTraining])
def test_a_channel_mixer_that_leaks_is_found(planted, tmp_path):
    plan, stack = stack_of(tmp_path, Honest, channel=planted)
    with pytest.raises(ConfigError, match=r"channel mixer \(stack.channel\) (sees the future|reads other)"):
        check_plan(plan, stack, 40)


@pytest.mark.parametrize("honest", [Pointwise, TokenShift])
def test_an_honest_channel_mixer_passes(honest, tmp_path):
    plan, stack = stack_of(tmp_path, Honest, channel=honest)
    assert any(line.startswith("channel mixer: no leak") for line in check_plan(plan, stack, 40))
