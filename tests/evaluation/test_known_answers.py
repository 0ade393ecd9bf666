"""Stacks of which it is known what each layer group does: the probes must say so, and nothing else."""

import pytest
import torch

from hybridlab.evaluation.passes.probes import MEASURES
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import Copy, Given, quality_of, speaking_clearly, stack_of

CPU = torch.device("cpu")
LAG, VOCABULARY, WIDTH, LENGTH = 24, 40, 64, 160
GROUPS = ("early", "middle", "deep")
every_probe = quality_of(probes=list(MEASURES))


def copying_task(lag=LAG):
    """Tell the token `lag` before, a recall; before there is one, tell the token itself. A document a row."""
    tokens = torch.randint(VOCABULARY, (12, LENGTH), generator=torch.Generator().manual_seed(5))
    place = torch.arange(LENGTH).expand_as(tokens)
    recall = (place >= lag).long()
    targets = torch.where(recall > 0, tokens.roll(lag, 1), tokens)
    slices = {"document": torch.arange(12)[:, None].expand_as(tokens), "position": place, "recall": recall}
    batches = [
        Batch(tokens[rows], targets[rows], {name: facts[rows] for name, facts in slices.items()})
        for rows in (slice(0, 8), slice(8, 12))
    ]
    return Given(batches, vocabulary=VOCABULARY)


def measured(stack, task, quality=every_probe):
    return {row.name: row for row in quality.measure(stack, task, CPU)}


@pytest.fixture(scope="module", params=GROUPS)
def copying(request):
    """A stack in which one group copies; of the others one mixes nearby tokens a little, and one does nothing."""
    others = [group for group in GROUPS if group != request.param]
    mixers = {request.param: "linear", others[0]: "gated_conv", others[1]: "identity"}
    stack = speaking_clearly(stack_of({group: {"mixer": mixers[group]} for group in GROUPS}, VOCABULARY, width=WIDTH))
    stack.layers[GROUPS.index(others[0])].mixer.out.weight.data *= 0.1
    stack.layers[GROUPS.index(request.param)].mixer = Copy(LAG)
    return request.param, others[0], others[1], measured(stack, copying_task())


@pytest.mark.parametrize("measure", ["knockout", "mean_knockout"])
def test_a_knockout_shows_the_group_that_copies_and_only_there_and_only_in_recall(copying, measure):
    group, nearby, nothing, rows = copying
    found = {name: rows[f"test/{measure}/group/{name}/mixer/recall/recall"] for name in GROUPS}
    other = {name: rows[f"test/{measure}/group/{name}/mixer/recall/other tokens"] for name in GROUPS}
    assert found[group].low > 3
    assert abs(found[nearby].value) < 0.02
    assert max(abs(row.value) for row in other.values()) < 0.02
    assert (found[nothing].value, found[nothing].low, found[nothing].high) == (0, 0, 0)
    assert rows[f"test/{measure}/mixer/linear/mixer"].value == rows[f"test/{measure}/group/{group}/mixer"].value


def test_reach_shows_how_far_back_the_group_that_copies_looks(copying):
    group, nearby, nothing, rows = copying
    assert rows[f"test/reach/group/{group}/mixer/block 16/recall/recall"].low > 1
    assert abs(rows[f"test/reach/group/{group}/mixer/block 16/recall/other tokens"].value) < 1e-6
    assert rows[f"test/reach_tokens/group/{group}/mixer"].value == 32
    for other in (nearby, nothing):
        assert abs(rows[f"test/reach/group/{other}/mixer/block 16"].value) < 1e-6
        assert rows[f"test/reach_tokens/group/{other}/mixer"].value == 16
    assert rows[f"test/reach/group/{nothing}/mixer/block 16"].value == 0


def test_lenses_fall_at_the_group_that_copies(copying):
    group, _, _, rows = copying
    for measure in ("lens", "tuned_lens"):
        found = [rows[f"test/{measure}/group/{name}/recall/recall"].value for name in GROUPS]
        at = GROUPS.index(group)
        assert all(value > 2 for value in found[:at])
        assert all(value < 0.1 for value in found[at:])


def test_the_tuned_lens_of_the_last_group_is_the_intact_nll(copying):
    *_, rows = copying
    assert rows["test/tuned_lens/group/deep"].value == rows["test/nll"].value


def test_a_part_of_a_parallel_layer_that_copies_is_found():
    parallel = {"parallel": ["identity", "linear"]}
    stack = stack_of({"early": {"mixer": parallel}, "deep": {"mixer": "identity"}}, VOCABULARY, width=WIDTH)
    mixer = speaking_clearly(stack).layers[0].mixer
    mixer.parts["linear"] = Copy(LAG)
    torch.nn.init.eye_(mixer.out.weight).data.mul_(4)
    rows = measured(stack, copying_task())
    copies, nothing = "linear in identity+linear", "identity in identity+linear"
    for measure in ("knockout", "mean_knockout"):
        assert rows[f"test/{measure}/part/{copies}/mixer"].low > 3
        assert rows[f"test/{measure}/part/{nothing}/mixer"].value == 0
        assert rows[f"test/{measure}/group/early/mixer"].low > 3
    assert (
        rows[f"test/reach_tokens/part/{copies}/mixer"].value == rows["test/reach_tokens/group/early/mixer"].value == 32
    )
    assert rows[f"test/reach_tokens/part/{nothing}/mixer"].value == 16


@pytest.mark.parametrize(("copies", "sign"), [((Copy(LAG), Copy(LAG, 0.6)), 1), ((Copy(10), Copy(14, 10.0)), -1)])
def test_the_interaction_tells_groups_that_do_one_anothers_work_from_groups_that_need_one_another(copies, sign):
    """Two that copy the same token; and one that copies what another has copied."""
    stack = speaking_clearly(stack_of({group: {"mixer": "identity"} for group in GROUPS}, VOCABULARY, width=WIDTH))
    stack.layers[0].mixer, stack.layers[2].mixer = copies
    rows = measured(stack, copying_task(), quality_of(probes=["knockout", "interaction"]))
    alone = [rows[f"test/knockout/group/{group}/mixer/recall/recall"].value for group in GROUPS]
    together = rows["test/interaction/pair/early & deep/mixer/recall/recall"]
    assert rows["test/interaction/pair/early & middle/mixer"].value == 0
    if sign > 0:
        assert max(alone) < 0.1
        assert together.low > 3
    else:
        assert min(alone[0], alone[2]) > 3
        assert together.high < -3


@pytest.mark.parametrize("window", [16, 32, 64])
def test_a_sliding_window_has_a_reach_of_the_window(window):
    """Marks among tokens of no value: asked for is the one that only the far end of the window still holds."""
    stack = speaking_clearly(
        stack_of({"early": {"mixer": {"name": "sliding", "window": window}}}, VOCABULARY, width=WIDTH)
    )
    stack.embedding.weight.data[0] = 0
    attention = stack.layers[0].mixer
    for linear in (attention.projections.query, attention.projections.key):
        torch.nn.init.zeros_(linear.weight)  # so that attention is even
    for linear in (attention.projections.value, attention.out):
        torch.nn.init.eye_(linear.weight)
    tokens, targets = torch.zeros(6, 320, dtype=torch.int64), torch.full((6, 320), IGNORED)
    for row in range(6):
        for place in range(row, 320 - window, window + 3):
            tokens[row, place] = targets[row, place + window - 1] = 1 + (place + 7 * row) % (VOCABULARY - 1)
    facts = {"document": torch.arange(6)[:, None].expand_as(tokens), "position": torch.arange(320).expand_as(tokens)}
    task = Given([Batch(tokens, targets, facts)], vocabulary=VOCABULARY)
    rows = measured(stack, task, quality_of(probes=["reach"]))
    lost = {
        row.block: row for row in rows.values() if row.measure == "reach" and row.grouping == "group" and not row.slice
    }
    assert list(lost) == [16, 32, 64, 128]
    assert all(row.low > 0.5 for block, row in lost.items() if block < window)
    assert all(abs(row.value) < 1e-6 for block, row in lost.items() if block >= window)
    assert (
        rows["test/reach_tokens/group/early/mixer"].value
        == rows["test/reach_tokens/mixer/sliding/mixer"].value
        == window
    )
