"""Stacks whose layer groups do something known: the measures must find it, and nothing else."""

import pytest
import torch

from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import OF_LAYERS, Copy, Given, evaluate, speaking_clearly, stack_of

LAG, VOCABULARY, WIDTH, LENGTH = 24, 40, 64, 160
GROUPS = ("early", "middle", "deep")


def copying_task(lag=LAG):
    """Return a task whose target is the token `lag` before (a recall), else the token itself.

    Each sequence is a document.
    """
    tokens = torch.randint(VOCABULARY, (12, LENGTH), generator=torch.Generator().manual_seed(5))
    position = torch.arange(LENGTH).expand_as(tokens)
    recall = (position >= lag).long()
    targets = torch.where(recall > 0, tokens.roll(lag, 1), tokens)
    slices = {"document": torch.arange(12)[:, None].expand_as(tokens), "position": position, "recall": recall}
    batches = [
        Batch(tokens[some], targets[some], {name: facts[some] for name, facts in slices.items()})
        for some in (slice(0, 8), slice(8, 12))
    ]
    return Given(batches, vocabulary=VOCABULARY)


@pytest.fixture(scope="module", params=GROUPS)
def copying(request):
    """A stack in which one group copies, one mixes nearby tokens a little, and one does nothing."""
    others = [group for group in GROUPS if group != request.param]
    mixers = {request.param: "linear", others[0]: "gated_conv", others[1]: "identity"}
    stack = speaking_clearly(stack_of({group: {"mixer": mixers[group]} for group in GROUPS}, VOCABULARY, width=WIDTH))
    stack.layers[GROUPS.index(others[0])].mixer.out.weight.data *= 0.1
    stack.layers[GROUPS.index(request.param)].mixer = Copy(LAG)
    return request.param, others[0], others[1], evaluate(stack, copying_task(), *OF_LAYERS)


@pytest.mark.parametrize("measure", ["knockout", "mean_knockout"])
def test_a_knockout_shows_the_group_that_copies_and_only_there_and_only_in_recall(copying, measure):
    group, nearby, nothing, measured = copying
    found = {name: measured[f"test/{measure}/group/{name}/mixer/recall/recall"] for name in GROUPS}
    other = {name: measured[f"test/{measure}/group/{name}/mixer/recall/other tokens"] for name in GROUPS}
    assert found[group].low > 3
    assert abs(found[nearby].value) < 0.02
    assert max(abs(each.value) for each in other.values()) < 0.02
    assert (found[nothing].value, found[nothing].low, found[nothing].high) == (0, 0, 0)
    assert measured[f"test/{measure}/mixer/linear/mixer"].value == measured[f"test/{measure}/group/{group}/mixer"].value


def test_reach_shows_how_far_back_the_group_that_copies_looks(copying):
    group, nearby, nothing, measured = copying
    assert measured[f"test/reach/group/{group}/mixer/block 16/recall/recall"].low > 1
    assert abs(measured[f"test/reach/group/{group}/mixer/block 16/recall/other tokens"].value) < 1e-6
    assert measured[f"test/reach_tokens/group/{group}/mixer"].value == 32
    for other in (nearby, nothing):
        assert abs(measured[f"test/reach/group/{other}/mixer/block 16"].value) < 1e-6
        assert measured[f"test/reach_tokens/group/{other}/mixer"].value == 16
    assert measured[f"test/reach/group/{nothing}/mixer/block 16"].value == 0


def test_lenses_fall_at_the_group_that_copies(copying):
    group, _, _, measured = copying
    for measure in ("lens", "tuned_lens"):
        found = [measured[f"test/{measure}/group/{name}/recall/recall"].value for name in GROUPS]
        at = GROUPS.index(group)
        assert all(value > 2 for value in found[:at])
        assert all(value < 0.1 for value in found[at:])


def test_the_tuned_lens_of_the_last_group_is_the_intact_nll(copying):
    *_, measured = copying
    assert measured["test/tuned_lens/group/deep"].value == measured["test/nll"].value


def test_a_part_of_a_parallel_layer_that_copies_is_found():
    parallel = {"parallel": ["identity", "linear"]}
    stack = stack_of({"early": {"mixer": parallel}, "deep": {"mixer": "identity"}}, VOCABULARY, width=WIDTH)
    mixer = speaking_clearly(stack).layers[0].mixer
    mixer.parts["linear"] = Copy(LAG)
    torch.nn.init.eye_(mixer.out.weight).data.mul_(4)
    measured = evaluate(stack, copying_task(), *OF_LAYERS)
    copies, nothing = "linear in identity+linear", "identity in identity+linear"
    for measure in ("knockout", "mean_knockout"):
        assert measured[f"test/{measure}/part/{copies}/mixer"].low > 3
        assert measured[f"test/{measure}/part/{nothing}/mixer"].value == 0
        assert measured[f"test/{measure}/group/early/mixer"].low > 3
    assert (
        measured[f"test/reach_tokens/part/{copies}/mixer"].value
        == measured["test/reach_tokens/group/early/mixer"].value
        == 32
    )
    assert measured[f"test/reach_tokens/part/{nothing}/mixer"].value == 16


@pytest.mark.parametrize(("copies", "sign"), [((Copy(LAG), Copy(LAG, 0.6)), 1), ((Copy(10), Copy(14, 10.0)), -1)])
def test_the_interaction_tells_groups_that_do_the_same_from_groups_that_need_each_other(copies, sign):
    """Two groups copy the same token, or one copies what another has copied."""
    stack = speaking_clearly(stack_of({group: {"mixer": "identity"} for group in GROUPS}, VOCABULARY, width=WIDTH))
    stack.layers[0].mixer, stack.layers[2].mixer = copies
    measured = evaluate(stack, copying_task(), "knockout", "interaction")
    alone = [measured[f"test/knockout/group/{group}/mixer/recall/recall"].value for group in GROUPS]
    together = measured["test/interaction/pair/early & deep/mixer/recall/recall"]
    assert measured["test/interaction/pair/early & middle/mixer"].value == 0
    if sign > 0:
        assert max(alone) < 0.1
        assert together.low > 3
    else:
        assert min(alone[0], alone[2]) > 3
        assert together.high < -3


@pytest.mark.parametrize("window", [16, 32, 64])
def test_a_sliding_window_has_a_reach_of_the_window(window):
    """Marks among tokens of no value: each target is the mark at the far end of the window."""
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
    for document in range(6):
        for position in range(document, 320 - window, window + 3):
            mark = 1 + (position + 7 * document) % (VOCABULARY - 1)
            tokens[document, position] = targets[document, position + window - 1] = mark
    facts = {"document": torch.arange(6)[:, None].expand_as(tokens), "position": torch.arange(320).expand_as(tokens)}
    task = Given([Batch(tokens, targets, facts)], vocabulary=VOCABULARY)
    measured = evaluate(stack, task, "reach", "reach_tokens")
    lost = {
        each.block: each
        for each in measured.values()
        if each.measure == "reach" and each.grouping == "group" and not each.slice
    }
    assert list(lost) == [16, 32, 64, 128]
    assert all(each.low > 0.5 for block, each in lost.items() if block < window)
    assert all(abs(each.value) < 1e-6 for block, each in lost.items() if block >= window)
    assert (
        measured["test/reach_tokens/group/early/mixer"].value
        == measured["test/reach_tokens/mixer/sliding/mixer"].value
        == window
    )
