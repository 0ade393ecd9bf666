"""The contract of a mixer's state: chunks give what the whole sequence gives."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._pytree import tree_leaves, tree_map

from hybridlab.mixers.base import state_bytes
from tests.mixers.subject import Subject, in_chunks, tokens


@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_chunks_give_what_the_whole_gives(causal_subject: Subject, data: st.DataObject) -> None:
    mixer = causal_subject.build()
    t = data.draw(st.sampled_from([*causal_subject.lengths, causal_subject.long]), label="length")
    cuts = data.draw(st.sets(st.integers(1, max(t - 1, 1)), max_size=6), label="cuts")
    edges = [0, *sorted(cut for cut in cuts if cut < t), t]
    x = tokens(2, t)
    with torch.no_grad():
        y, _ = in_chunks(mixer, x, [end - start for start, end in pairwise(edges)])
        torch.testing.assert_close(y, mixer(x), rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_token_by_token_gives_what_the_whole_gives(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(1, min(causal_subject.long, 150))
    y, _ = in_chunks(mixer, x, [1] * x.shape[1])
    torch.testing.assert_close(y, mixer(x), rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_decoding_after_a_long_past_gives_what_the_whole_gives(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(2, causal_subject.long + 9)
    y, _ = in_chunks(mixer, x, [causal_subject.long, 1, 1, 1, 1, 5])
    torch.testing.assert_close(y, mixer(x), rtol=1e-8, atol=1e-8)


def test_gradients_flow_through_the_state(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(2, 40)
    sought = [x.requires_grad_(), *mixer.parameters()]
    expected = torch.autograd.grad(mixer(x).square().sum(), sought)
    found = torch.autograd.grad(in_chunks(mixer, x, [17, 1, 22])[0].square().sum(), sought)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@torch.no_grad()
def test_state_is_made_of_tensors_with_the_batch_first(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(3, 33)
    for state in (mixer.initial_state(3, x), in_chunks(mixer, x, [33])[1]):
        assert isinstance(state, tuple)
        assert hasattr(state, "_fields")
        assert all(isinstance(part, torch.Tensor) and part.shape[0] == 3 for part in tree_leaves(state))


@torch.no_grad()
def test_sequences_of_a_state_can_be_selected(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(3, 40)
    _, state = in_chunks(mixer, x[:, :30], [30])
    y, _ = mixer.extend(x[[2, 0], 30:], tree_map(lambda part: part[[2, 0]], state))
    torch.testing.assert_close(y, mixer(x)[[2, 0], 30:], rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_extend_leaves_the_given_state_alone(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(2, causal_subject.long + 20)
    for past in (0, 5, causal_subject.long):
        state = mixer.initial_state(2, x) if past == 0 else in_chunks(mixer, x[:, :past], [past])[1]
        copies = [part.clone() for part in tree_leaves(state)]
        first, _ = mixer.extend(x[:, past : past + 9], state)
        assert all(torch.equal(part, copy) for part, copy in zip(tree_leaves(state), copies, strict=True))
        again, _ = mixer.extend(x[:, past : past + 9], state)
        assert torch.equal(first, again)


@torch.no_grad()
def test_state_stops_growing_exactly_if_declared(causal_subject: Subject) -> None:
    mixer = causal_subject.build().float()
    n = max([16, *causal_subject.counts.values()])
    x = tokens(1, n + 40, torch.float32)
    _, early = in_chunks(mixer, x[:, :n], [n])
    _, late = in_chunks(mixer, x, [n, 1, 39])
    if causal_subject.cls.bounded_state:
        assert state_bytes(early) == state_bytes(late)
    else:
        assert state_bytes(early) < state_bytes(late)


@torch.no_grad()
def test_state_keeps_no_memory_beyond_its_bytes(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(2, causal_subject.long)
    _, state = in_chunks(mixer, x, [causal_subject.long - 1, 1])
    assert sum(part.untyped_storage().nbytes() for part in tree_leaves(state)) == state_bytes(state)


@torch.no_grad()
def test_state_bytes_on_the_meta_device_are_the_real_ones(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build().float(), tokens(1, 50, torch.float32)
    _, real = in_chunks(mixer, x, [50])
    _, counted = in_chunks(mixer.to("meta"), x.to("meta"), [50])
    assert state_bytes(counted) == state_bytes(real)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["autocast", "pure"])
def test_bfloat16_chunks_are_close_and_keep_the_dtypes_of_the_state(
    causal_subject: Subject, dtype: torch.dtype
) -> None:
    mixer, x = causal_subject.build().to(dtype), tokens(2, 60, dtype)
    expected = mixer.float()(x.float())
    mixer = mixer.to(dtype)
    start = mixer.initial_state(2, x)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        y, state = in_chunks(mixer, x, [20, 1, 39])
    assert [part.dtype for part in tree_leaves(state)] == [part.dtype for part in tree_leaves(start)]
    assert (y.float() - expected).square().mean() <= 0.05**2 * expected.square().mean()
