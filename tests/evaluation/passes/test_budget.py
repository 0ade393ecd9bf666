"""The cost of interventions in layers, and the sample of sequences that a budget pays for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.evaluation.passes.sampling import LEAST, first_sequences, regrouped, sample_sequences
from hybridlab.stack.measure import parameters
from hybridlab.tasks.batch import Batch
from tests.evaluation.examples import CHANGES, CPU, OF_LAYERS, Given, complete, evaluate, evaluation_of, stack_of

GROUPS = {name: {"layers": 2, "mixer": mixer} for name, mixer in (("a", "full"), ("b", "linear"), ("c", "full"))}
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}
VOCABULARY, LENGTH, DOCUMENTS = 20, 96, 80  # 4 sequences of each: the budgets pay for more than the least sample


@pytest.fixture
def task():
    draw = torch.Generator().manual_seed(0)
    position = torch.arange(LENGTH).expand(8, LENGTH)
    batches = []
    for first in range(0, DOCUMENTS, 2):
        document = torch.arange(first, first + 2).repeat_interleave(4)[:, None].expand(8, LENGTH)
        tokens, targets = torch.randint(VOCABULARY, (2, 8, LENGTH), generator=draw)
        batches.append(Batch(tokens, targets, {"document": document, "position": position}))
    return Given(batches, vocabulary=VOCABULARY)


def passed(stack, task, evaluation):
    """Return the measurements, and how many tokens passed through a layer or the head.

    Where a mixer reads windows, the tokens of the windows count. The head counts as many layers as
    it has weights, relative to a mean layer.
    """
    tokens = {"layers": 0.0, "head": 0.0}

    def count(name):
        return lambda _module, inputs: tokens.__setitem__(name, tokens[name] + inputs[0][..., 0].numel())

    for layer in stack.layers:
        layer.mixer.out.register_forward_pre_hook(count("layers"))
    stack.head.register_forward_pre_hook(count("head"))
    measured = complete(evaluation.measure(stack, task, CPU))
    head = stack.head.weight.numel() / (parameters(stack.layers) / len(stack.layers))
    return measured, tokens["layers"] + head * tokens["head"]


@pytest.mark.slow
@pytest.mark.parametrize("budget", [3.0, 2.0])
def test_every_measure_of_three_groups_stays_within_the_budget(task, budget):
    _, plain = passed(stack_of(GROUPS, VOCABULARY, channel=CHANNEL), task, evaluation_of())
    full = evaluation_of(*OF_LAYERS, intervention_budget=budget)
    measured, total = passed(stack_of(GROUPS, VOCABULARY, channel=CHANNEL), task, full)
    assert 0.8 * (1 + budget) * plain < total <= (1 + budget) * plain

    assert {each.measure for each in measured} == {"nll", *OF_LAYERS}
    whole = [each for each in measured if not each.slice]
    counts = {(each.tokens, each.n) for each in whole if each.measure in (*CHANGES, "reach_tokens")}
    ((tokens, documents),) = counts
    assert tokens % LENGTH == 0
    assert 5 < documents <= tokens // LENGTH < 4 * DOCUMENTS
    assert full.summary(measured, task)["intervention_tokens"] == tokens
    assert {(each.tokens, each.n) for each in whole if each.measure in ("nll", "lens", "tuned_lens")} == {
        (4 * DOCUMENTS * LENGTH, DOCUMENTS)
    }


def test_without_a_budget_interventions_are_run_on_all_sequences(task):
    measured, _ = passed(stack_of(GROUPS, VOCABULARY), task, evaluation_of("knockout"))
    assert {(each.tokens, each.n) for each in measured if not each.slice} == {(4 * DOCUMENTS * LENGTH, DOCUMENTS)}


def test_what_is_measured_on_a_sample_is_paired_with_the_same_targets(task):
    """A knockout of layers that add nothing is 0 whatever sequences it is measured on."""
    stack = stack_of({"a": {"mixer": "full"}, "b": {"mixer": "identity"}}, VOCABULARY)
    measured = evaluate(stack, task, "knockout", "mean_knockout", intervention_budget=0.6)
    found = [each for each in measured.values() if each.group == "b"]
    assert found
    assert all((each.value, each.low, each.high) == (0, 0, 0) for each in found)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.floats(0, 1))
def test_a_sample_is_a_share_of_the_sequences_spread_evenly(counts, share):
    chosen = sample_sequences(counts, share)
    assert [len(each) for each in chosen] == counts
    flat = np.concatenate(chosen)
    assert flat.sum() == max(min(LEAST, len(flat)), int(share * len(flat)))
    gaps = np.diff(np.flatnonzero(flat))
    assert gaps.max(initial=0) <= 2 * len(flat) / flat.sum() + 1
    assert all((one == other).all() for one, other in zip(chosen, sample_sequences(counts, share), strict=True))


def test_a_small_set_of_examples_leaves_enough_sequences_for_intervals(task):
    """A budget of hardly anything, on sequences that are an example each."""
    examples = torch.arange(24).view(3, 8, 1).expand(3, 8, LENGTH)
    few = [batch._replace(slices={"document": each}) for batch, each in zip(task.batches, examples, strict=False)]
    small = Given(few, vocabulary=VOCABULARY)
    measured = evaluate(stack_of(GROUPS, VOCABULARY), small, "knockout", intervention_budget=0.01)
    found = [each for each in measured.values() if each.measure == "knockout" and not each.slice]
    assert found
    assert all(each.n == LEAST and each.low < each.high for each in found)


def test_a_share_of_one_samples_all_sequences():
    assert np.concatenate(sample_sequences([3, 1, 8], 1.0)).all()


def test_sampled_sequences_are_batched_by_length_with_their_facts(task):
    short = [batch._replace(inputs=batch.inputs[:, :9], targets=batch.targets[:, :9]) for batch in task.batches[:3]]
    short = [
        batch._replace(slices={name: fact[:, :9] for name, fact in batch.slices.items()}, documents=batch.inputs)
        for batch in short
    ]
    for batches in (task.batches, short, [*task.batches, *short[:1]]):
        several = list(regrouped(batches, 0.3, 6))
        chosen = sample_sequences([len(batch.inputs) for batch in batches], 0.3)
        expected = [
            (one.inputs, one.targets, *one.slices.values())
            for batch, drawn in zip(batches, chosen, strict=True)
            for one in (_sequence(batch, index) for index in np.flatnonzero(drawn))
        ]
        found = [_sequence(batch, index) for batch in several for index in range(len(batch.inputs))]
        assert all(len(batch.inputs) <= 6 for batch in several)
        assert len(several) < sum(drawn.any() for drawn in chosen)
        for one, wanted in zip(found, expected, strict=True):
            for tensor, other in zip((one.inputs, one.targets, *one.slices.values()), wanted, strict=True):
                assert torch.equal(tensor, other)
            assert one.documents is None or torch.equal(one.documents, one.inputs)


def test_the_first_sequences_of_a_batch_keep_their_facts(task):
    few = first_sequences(task.batches[1], 3)
    assert torch.equal(few.inputs, task.batches[1].inputs[:3])
    assert torch.equal(few.slices["document"], task.batches[1].slices["document"][:3])
    assert few.documents is None


def _sequence(batch, index):
    documents = None if batch.documents is None else batch.documents[index]
    return Batch(
        batch.inputs[index], batch.targets[index], {n: fact[index] for n, fact in batch.slices.items()}, documents
    )
