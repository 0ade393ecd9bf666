"""Documents read piece by piece against rows read whole, and against windows where a cache is bounded."""

import pytest
import torch
import torch.nn.functional as F

from hybridlab.config import mixer_files
from hybridlab.evaluation.measures.streaming import Streaming, read
from hybridlab.mixers.base import state_bytes
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.text.documents import Documents
from tests.evaluation.examples import Given

CPU = torch.device("cpu")
SMALL = {"mamba2": {"head_width": 16, "state": 8}, "sliding": {"window": 12}, "full": {"heads": 2}}


def stack_of(mixer, **settings):
    torch.manual_seed(0)
    plan = expand({"width": 32, "groups": {"all": {"mixer": mixer}}}, SMALL, mixer_files(), **settings)
    return Stack(plan, 257).double()


def tokens(length, rows=2):
    return torch.randint(257, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def streamed(stack, row, piece, cache):
    return torch.cat(list(read(stack, row, piece, cache)), dim=1)


@pytest.mark.parametrize("mixer", ["mamba2 sliding", "gated_delta short_conv", "hyena", "mamba2 full", "moba"])
@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
@torch.no_grad()
def test_pieces_give_what_the_whole_gives(mixer, piece):
    stack, row = stack_of(mixer), tokens(70)
    torch.testing.assert_close(streamed(stack, row, piece, cache=140), stack(row), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("mixer", ["full", "full strided full"])
@torch.no_grad()
def test_states_that_grow_see_their_half_of_the_cache_and_the_one_before(mixer):
    stack, row = stack_of(mixer), tokens(70)
    found = streamed(stack, row, piece=5, cache=24)
    torch.testing.assert_close(found[:, :24], stack(row[:, :24]), rtol=1e-8, atol=1e-8)
    for start in range(24, 70, 12):
        window = row[:, start - 12 : start + 12]
        torch.testing.assert_close(found[:, start : start + 12], stack(window)[:, 12:], rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_states_that_do_not_grow_remember_all_the_document():
    stack, row = stack_of("mamba2 full"), tokens(70)
    found = streamed(stack, row, piece=5, cache=24)
    first, second = stack.layers
    whole = first(stack.embedding(row))
    for start in range(24, 70, 12):
        window = second(whole[:, start - 12 : start + 12])[:, 12:]
        torch.testing.assert_close(found[:, start : start + 12], stack.read(window), rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_the_state_of_a_long_document_stays_as_small_as_that_of_the_cache(monkeypatch):
    stack, held = stack_of("mamba2 sliding full"), []
    extend = stack.extend

    def watched(piece, state):
        held.append(state_bytes(state))
        return extend(piece, state)

    monkeypatch.setattr(stack, "extend", watched)
    streamed(stack, tokens(400, rows=1), piece=8, cache=32)
    of_the_cache = state_bytes(extend(tokens(32, rows=1), stack.initial_state(1))[1])
    assert max(held) <= of_the_cache
    assert sorted(held[-20:]) == sorted(held[-40:-20])


def test_the_streamed_nll_is_that_of_documents_read_whole(corpus):
    stack = stack_of("mamba2 sliding").train()
    task = Documents(seed=0, length=32, batch=2, path=str(corpus), test_share=0.3)
    with torch.no_grad():
        batches = list(task.evaluation_batches("test", window=10**6, stride=10**6, limit=None, batch=3))
        whole = sum(float(F.cross_entropy(stack(b.inputs).mT, b.targets, reduction="sum")) for b in batches)
    rows = {row.name: row for row in Streaming(piece=20, batch=3).measure(stack, task, [], CPU, "test")}
    assert stack.training
    found, scored = rows["test/streamed_nll"], sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    assert found.value == pytest.approx(whole / scored, rel=1e-9)
    documents = sum(len(batch.inputs) for batch in batches)
    assert (found.tokens, found.n, found.interval) == (scored, documents, "bootstrap over documents")
    by_position = [row for row in rows.values() if row.slice == "position"]
    assert sum(row.tokens for row in by_position) == found.tokens
    assert sum(row.value * row.tokens for row in by_position) / found.tokens == pytest.approx(found.value)


def test_an_encoder_is_not_streamed():
    rows = Batch(tokens(9), torch.tensor([0, 1]), {"document": torch.arange(2)})
    task = Given([rows], vocabulary=257, classes=2)
    assert Streaming().measure(stack_of("full", causal=False), task, [rows], CPU, "test") == []


@pytest.mark.parametrize("bad", [{"piece": 0}, {"cache": 1}, {"batch": -1}, {"limit": 0}])
def test_bad_settings_are_refused(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ValueError, match=f"^{name}={value}: "):
        Streaming(**bad)
