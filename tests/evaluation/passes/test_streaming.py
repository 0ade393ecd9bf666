"""Documents read in chunks, against whole sequences, or windows where a cache is bounded."""

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.evaluation.passes.streaming import stream
from hybridlab.mixers.base import state_bytes
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand

SMALL = {"mamba2": {"head_width": 16, "state": 8}, "sliding": {"window": 12}, "full": {"heads": 2}}


def stack_of(mixer):
    torch.manual_seed(0)
    plan = expand({"width": 32, "groups": {"all": {"mixer": mixer}}}, SMALL, mixer_files())
    return Stack(plan, 257).double()


def tokens(length, sequences=2):
    return torch.randint(257, (sequences, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def streamed(stack, sequences, chunk, cache):
    return torch.cat(list(stream(stack, sequences, chunk, cache)), dim=1)


@pytest.mark.parametrize("mixer", ["mamba2 sliding", "gated_delta short_conv", "hyena", "mamba2 full", "moba"])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@torch.no_grad()
def test_chunks_give_what_the_whole_sequence_gives(mixer, chunk):
    stack, sequences = stack_of(mixer), tokens(70)
    found = streamed(stack, sequences, chunk, cache=140)
    torch.testing.assert_close(found, stack(sequences), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("mixer", ["full", "full strided full"])
@torch.no_grad()
def test_states_that_grow_see_their_half_of_the_cache_and_the_one_before(mixer):
    stack, sequences = stack_of(mixer), tokens(70)
    found = streamed(stack, sequences, chunk=5, cache=24)
    torch.testing.assert_close(found[:, :24], stack(sequences[:, :24]), rtol=1e-8, atol=1e-8)
    for start in range(24, 70, 12):
        window = sequences[:, start - 12 : start + 12]
        torch.testing.assert_close(found[:, start : start + 12], stack(window)[:, 12:], rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_states_that_do_not_grow_remember_the_whole_document():
    stack, sequences = stack_of("mamba2 full"), tokens(70)
    found = streamed(stack, sequences, chunk=5, cache=24)
    first, second = stack.layers
    whole = first(stack.embedding(sequences))
    for start in range(24, 70, 12):
        window = second(whole[:, start - 12 : start + 12])[:, 12:]
        torch.testing.assert_close(found[:, start : start + 12], stack.read(window), rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_the_state_of_a_long_document_stays_as_small_as_that_of_the_cache(monkeypatch):
    stack, held = stack_of("mamba2 sliding full"), []
    extend = stack.extend

    def watched(chunk, state):
        held.append(state_bytes(state))
        return extend(chunk, state)

    monkeypatch.setattr(stack, "extend", watched)
    streamed(stack, tokens(400, sequences=1), chunk=8, cache=32)
    of_the_cache = state_bytes(extend(tokens(32, sequences=1), stack.initial_state(1))[1])
    assert max(held) <= of_the_cache
    assert sorted(held[-20:]) == sorted(held[-40:-20])
