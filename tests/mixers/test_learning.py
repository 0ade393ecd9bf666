"""Two mixers learn recall as the layers that they are compared with; a harmed one does not."""

from statistics import fmean

import pytest

from tests.mixers.learning import CHECKS, LESSONS, OURS, RECALL, SMALL, THEIRS, Arm, build, difference, row, train_all

SEEDS = 3
LESSON = {lesson.reference.mixer: lesson for lesson in LESSONS}


def curves(mixer: str, *arms: Arm) -> list[list[list[float]]]:
    """Return the accuracies of each arm and seed."""
    jobs = [(LESSON[mixer], arm, seed) for arm in arms for seed in range(SEEDS)]
    found = list(train_all(SMALL, jobs, processes=1))
    return [found[start : start + SEEDS] for start in range(0, len(found), SEEDS)]


@pytest.mark.slow
def test_delta_learns_as_its_reference() -> None:
    ours, theirs = curves("delta", OURS, THEIRS)
    assert fmean(each[-1] for each in ours + theirs) > RECALL
    assert difference(ours, theirs).verdict != "differs"


@pytest.mark.slow
def test_gated_delta_learns_as_its_reference_unless_it_is_harmed() -> None:
    ours, theirs, harmed = curves("gated_delta", OURS, THEIRS, "all steps start near 1")
    assert fmean(each[-1] for each in ours + theirs) > RECALL
    assert difference(ours, theirs).verdict != "differs"
    assert difference(harmed, ours + theirs).verdict == "differs"


@pytest.mark.parametrize("mixer", list(LESSON))
def test_both_stacks_start_from_as_many_weights_of_one_size(mixer: str) -> None:
    pytest.importorskip("transformers", reason="it comes with hybridlab[test]")
    stacks = [build(LESSON[mixer], 32, 64, theirs) for theirs in (False, True)]
    counts = [sum(each.numel() for each in stack.parameters() if each.requires_grad) for stack in stacks]
    assert counts[0] == counts[1]
    outs = [stack.layers[1].mixer.out.weight.std().item() for stack in stacks]  # type: ignore[union-attr]
    assert outs[0] == pytest.approx(outs[1], rel=0.1)


def test_verdict_follows_from_the_interval() -> None:
    def of(*means: float) -> list[list[float]]:
        return [[mean] * CHECKS for mean in means]

    found = difference(of(0.50, 0.60, 0.70), of(0.55, 0.60, 0.68))
    # Two samples of 3: t = 2.776 with 4 degrees of freedom, and variances 0.01 and 0.0043.
    assert found.value == pytest.approx(-0.01)
    assert found.high - found.value == pytest.approx(2.776 * ((0.01 + 0.00430) / 3) ** 0.5, rel=1e-3)
    assert found.verdict == "no difference shown"
    assert difference(of(0.60, 0.61, 0.62), of(0.60, 0.62, 0.63)).verdict == "equal within 0.1"
    assert difference(of(0.50, 0.55, 0.60), of(0.80, 0.85, 0.90)).verdict == "differs"
    assert "| neither recalls yet |" in row(LESSON["kda"], OURS, {OURS: of(0.1, 0.1), THEIRS: of(0.1, 0.1)})
    assert "| equal within 0.1 |" in row(LESSON["kda"], OURS, {OURS: of(0.9, 0.9), THEIRS: of(0.9, 0.9)})
