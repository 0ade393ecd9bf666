"""Sequences that read other sequences of their batch."""

import pytest
import torch

from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak import Kind, check_plan
from tests.evaluation.leak.planted import Honest, LastToken, both, leak_of
from tests.evaluation.leak.stacks import stack_of


class BatchMean(Honest):
    """The mean over the batch, position by position: no later input takes part."""

    def leak(self, x):
        return x.mean(0, keepdim=True) - x


class NextSequence(Honest):
    """Each sequence sees the next one of its batch."""

    def leak(self, x):
        return x.roll(1, dims=0) - x


class BatchSize(Honest):
    """Divided by the number of sequences, as in a mean over the batch."""

    def leak(self, x):
        return x / len(x) - x


class BatchMaximum(Honest):
    """A stabiliser over the whole batch, as in some ports of Nyströmformer."""

    def leak(self, x):
        return x / x.abs().amax(dim=(0, 2), keepdim=True) - x / x.abs().amax(2, keepdim=True)


class BatchMates(Honest):
    """Only batches of two or more are normalised, and only in training."""

    def leak(self, x):
        return (x - x.mean(0, keepdim=True)) * (self.training and len(x) > 1)


class BatchNorm(Honest):
    """BatchNorm: batch statistics in training, fixed ones in evaluation."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(self.width)

    def leak(self, x):
        return self.norm(x.mT).mT

    def extend(self, x, state):
        y, after = super().extend(x, state)
        return y + self.leak(x), after


class BatchNormOfTokens(BatchNorm):
    """BatchNorm with tokens as examples; it raises for a single one."""

    def leak(self, x):
        return self.norm(x.reshape(-1, self.width)).view_as(x)


class FirstSequence(Honest):
    """All see the first sequence of the batch, which sees nothing new."""

    def leak(self, x):
        return x[:1] - x


class LargeBatches(Honest):
    """Only batches of six or more."""

    def leak(self, x):
        return (x.mean(0, keepdim=True) - x) * (len(x) > 5)


class SharedState(Honest):
    """Decoding averages the state over the batch."""

    def extend(self, x, state):
        y, after = super().extend(x, LastToken(state.token.mean(0, keepdim=True).expand_as(state.token)))
        return y, after


@pytest.mark.parametrize("planted", both([BatchMean, NextSequence, FirstSequence, BatchSize, BatchMaximum, BatchMates]))
def test_a_sequence_that_reads_its_batch_mates_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind is Kind.BATCH
    assert "other sequences of its batch" in str(leak)


class BatchNormThatDecodingLacks(BatchNorm):
    extend = Honest.extend


@pytest.mark.parametrize("planted", [*both([BatchNorm, BatchNormOfTokens]), BatchNormThatDecodingLacks])
def test_batch_norm_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind in (Kind.BATCH, Kind.FUTURE)
    assert "in training mode" in str(leak)


def test_a_state_that_the_batch_shares_is_found():
    leak = leak_of(SharedState())
    assert leak is not None
    assert leak.kind is Kind.BATCH


def test_a_leak_of_batches_as_large_as_the_runs_is_found(tmp_path):
    plan, stack = stack_of(tmp_path, LargeBatches)
    assert check_plan(plan, stack, 20, batch=4)
    with pytest.raises(ConfigError, match="other sequences of its batch"):
        check_plan(plan, stack, 20, batch=8)
