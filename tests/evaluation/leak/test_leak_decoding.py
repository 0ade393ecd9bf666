"""Faults of `extend` and `initial_state`, which `forward` does not show."""

import pytest
import torch

from hybridlab.evaluation.leak import Kind
from tests.evaluation.leak.planted import Honest, LastToken, leak_of


class ChunkMean(Honest):
    """Within a chunk, every token sees the chunk's mean."""

    def extend(self, x, state):
        y, after = super().extend(x, state)
        return y + x.mean(1, keepdim=True) - x if x.shape[1] > 1 else y, after


class LastOfChunkIntoFirst(Honest):
    def extend(self, x, state):
        y, after = super().extend(x, state)
        y = y.clone()
        y[:, 0] += x[:, -1] - x[:, 0]
        return y, after


class LongChunks(Honest):
    """Only chunks above 32 tokens."""

    def extend(self, x, state):
        y, after = super().extend(x, state)
        return y + x.flip(1) * (x.shape[1] > 32), after


class RandomState(Honest):
    def initial_state(self, batch, like):
        return LastToken(torch.randn(batch, 1, self.width, dtype=like.dtype))


class SharedState(Honest):
    """One state for all calls, which each decoding writes into."""

    def __init__(self):
        super().__init__()
        self.state = None

    def initial_state(self, batch, like):
        if self.state is None or len(self.state.token) != batch:
            self.state = super().initial_state(batch, like)
        return self.state

    def extend(self, x, state):
        y, after = super().extend(x, state)
        state.token.copy_(after.token)
        return y, state


class KeepsTheSequence(Honest):
    """`forward` keeps its inputs, and `extend` peeks at them."""

    def __init__(self):
        super().__init__()
        self.seen = None

    def forward(self, x):
        self.seen = x.detach().clone()
        return super().forward(x)

    def extend(self, x, state):
        y, after = super().extend(x, state)
        peek = 0 if self.seen is None or len(self.seen) != len(x) else self.seen[:, -1:]
        return y + peek, after


class WrongState(Honest):
    """The state is one token too old."""

    def extend(self, x, state):
        y, _ = super().extend(x, state)
        return y, LastToken(x[:, -2:-1].clone() if x.shape[1] > 1 else state.token)


class OnesAtTheStart(Honest):
    def initial_state(self, batch, like):
        return LastToken(like.new_ones(batch, 1, self.width))


class WritesIntoTheState(Honest):
    """Nothing goes wrong in a row; a state kept for later would."""

    def extend(self, x, state):
        y, after = super().extend(x, state)
        state.token.copy_(after.token)
        return y, state


@pytest.mark.parametrize("planted", [ChunkMean, LastOfChunkIntoFirst, LongChunks])
def test_a_chunk_that_sees_ahead_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind is Kind.CHUNKS
    assert "sees the future within a chunk" in str(leak)


@pytest.mark.parametrize("planted", [RandomState, WrongState, OnesAtTheStart])
def test_decoding_another_function_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind is Kind.DECODING
    assert "`extend`" in str(leak)


@pytest.mark.parametrize("planted", [SharedState, KeepsTheSequence, WritesIntoTheState])
def test_a_state_that_lives_on_is_found(planted):
    leak = leak_of(planted())
    assert leak is not None
    assert leak.kind in (Kind.CHUNKS, Kind.STATE, Kind.BATCH)
