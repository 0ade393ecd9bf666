"""What the probes cost, counted in the layers that tokens pass through, and the sample of rows that keeps it within bounds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridlab.evaluation.passes.probes import CHANGES, MEASURES
from hybridlab.evaluation.passes.sampling import LEAST, chosen_rows, regrouped
from hybridlab.stack.measure import parameters
from hybridlab.tasks.batch import Batch
from tests.evaluation.examples import Given, quality_of, stack_of

GROUPS = {name: {"layers": 2, "mixer": mixer} for name, mixer in (("a", "full"), ("b", "linear"), ("c", "full"))}
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}
VOCABULARY, LENGTH, DOCUMENTS = 20, 96, 80  # 4 rows of each: what the budgets are worth is more than the least sample


@pytest.fixture
def task():
    draw = torch.Generator().manual_seed(0)
    place = torch.arange(LENGTH).expand(8, LENGTH)
    batches = []
    for first in range(0, DOCUMENTS, 2):
        document = torch.arange(first, first + 2).repeat_interleave(4)[:, None].expand(8, LENGTH)
        tokens, targets = torch.randint(VOCABULARY, (2, 8, LENGTH), generator=draw)
        batches.append(Batch(tokens, targets, {"document": document, "position": place}))
    return Given(batches, vocabulary=VOCABULARY)


def passed(stack, task, quality):
    """Return the rows of the record, and the tokens that passed through a layer (where a mixer reads windows, those of the
    windows) or were read by the head, which counts as many layers as it has weights by those of a mean layer."""
    tokens = {"layers": 0.0, "head": 0.0}

    def count(name):
        return lambda _module, inputs: tokens.__setitem__(name, tokens[name] + inputs[0][..., 0].numel())

    for layer in stack.layers:
        layer.mixer.out.register_forward_pre_hook(count("layers"))
    stack.head.register_forward_pre_hook(count("head"))
    rows = quality.measure(stack, task, torch.device("cpu"))
    read = stack.head.weight.numel() / (parameters(stack.layers) / len(stack.layers))
    return rows, tokens["layers"] + read * tokens["head"]


@pytest.mark.parametrize("budget", [3.0, 2.0])
def test_every_probe_of_three_groups_stays_within_the_budget(task, budget):
    _, plain = passed(stack_of(GROUPS, VOCABULARY, channel=CHANNEL), task, quality_of(probes=[]))
    full = quality_of(probes=list(MEASURES), probe_budget=budget)
    rows, total = passed(stack_of(GROUPS, VOCABULARY, channel=CHANNEL), task, full)
    assert 0.8 * (1 + budget) * plain < total <= (1 + budget) * plain

    assert {row.measure for row in rows} == {"nll", "reach_tokens", *MEASURES}
    whole = [row for row in rows if not row.slice]
    counts = {(row.tokens, row.n) for row in whole if row.measure in CHANGES}
    ((tokens, documents),) = counts
    assert tokens % LENGTH == 0
    assert 5 < documents <= tokens // LENGTH < 4 * DOCUMENTS
    assert full.stated(rows, task)["probed_tokens"] == tokens
    assert {(row.tokens, row.n) for row in whole if row.measure in ("nll", "lens")} == {
        (4 * DOCUMENTS * LENGTH, DOCUMENTS)
    }


def test_without_a_budget_every_probe_is_run_on_all_rows(task):
    rows, _ = passed(stack_of(GROUPS, VOCABULARY), task, quality_of(probes=["knockout"]))
    assert {(row.tokens, row.n) for row in rows if not row.slice} == {(4 * DOCUMENTS * LENGTH, DOCUMENTS)}


def test_what_is_measured_on_a_sample_is_paired_with_the_same_targets(task):
    """A knockout of layers that add nothing is 0 on whatever rows it is measured."""
    stack = stack_of({"a": {"mixer": "full"}, "b": {"mixer": "identity"}}, VOCABULARY)
    rows = quality_of(probes=["knockout", "mean_knockout"], probe_budget=0.6).measure(stack, task, torch.device("cpu"))
    found = [row for row in rows if row.group == "b"]
    assert found
    assert all((row.value, row.low, row.high) == (0, 0, 0) for row in found)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.floats(0, 1))
def test_a_sample_is_a_share_of_the_rows_spread_evenly(rows, share):
    chosen = chosen_rows(rows, share)
    assert [len(each) for each in chosen] == rows
    flat = np.concatenate(chosen)
    assert flat.sum() == max(min(LEAST, len(flat)), int(share * len(flat)))
    gaps = np.diff(np.flatnonzero(flat))
    assert gaps.max(initial=0) <= 2 * len(flat) / flat.sum() + 1
    assert all((one == other).all() for one, other in zip(chosen, chosen_rows(rows, share), strict=True))


def test_a_small_set_of_examples_leaves_enough_rows_for_intervals(task):
    """A budget of hardly anything, on rows that are an example each."""
    examples = torch.arange(24).view(3, 8, 1).expand(3, 8, LENGTH)
    few = [batch._replace(slices={"document": each}) for batch, each in zip(task.batches, examples, strict=False)]
    small = Given(few, vocabulary=VOCABULARY)
    rows = quality_of(probes=["knockout"], probe_budget=0.01).measure(
        stack_of(GROUPS, VOCABULARY), small, torch.device("cpu")
    )
    found = [row for row in rows if row.measure == "knockout" and not row.slice]
    assert found
    assert all(row.n == LEAST and row.low < row.high for row in found)


def test_all_rows_are_a_sample_of_all_rows():
    assert np.concatenate(chosen_rows([3, 1, 8], 1.0)).all()


def test_sampled_rows_come_together_with_their_facts_and_by_length(task):
    short = [batch._replace(inputs=batch.inputs[:, :9], targets=batch.targets[:, :9]) for batch in task.batches[:3]]
    short = [
        batch._replace(slices={name: fact[:, :9] for name, fact in batch.slices.items()}, documents=batch.inputs)
        for batch in short
    ]
    for batches in (task.batches, short, [*task.batches, *short[:1]]):
        pieces = list(regrouped(batches, 0.3, 6))
        chosen = chosen_rows([len(batch.inputs) for batch in batches], 0.3)
        expected = [
            (row.inputs, row.targets, *row.slices.values())
            for batch, rows in zip(batches, chosen, strict=True)
            for row in (_row(batch, index) for index in np.flatnonzero(rows))
        ]
        found = [_row(piece, index) for piece in pieces for index in range(len(piece.inputs))]
        assert all(len(piece.inputs) <= 6 for piece in pieces)
        assert len(pieces) < sum(rows.any() for rows in chosen)
        for row, wanted in zip(found, expected, strict=True):
            for one, other in zip((row.inputs, row.targets, *row.slices.values()), wanted, strict=True):
                assert torch.equal(one, other)
            assert row.documents is None or torch.equal(row.documents, row.inputs)


def _row(batch, index):
    documents = None if batch.documents is None else batch.documents[index]
    return Batch(
        batch.inputs[index], batch.targets[index], {n: fact[index] for n, fact in batch.slices.items()}, documents
    )
