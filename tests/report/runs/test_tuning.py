import pytest

from hybridlab.report import build
from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.sections.warnings import warnings
from tests.report.examples import measurement, run

MIXER, RATE = "stack.groups.early.mixer", "optimizer.lr"


def tried(mixer, rate, seed, test, validation, status="finished"):
    return run({MIXER: mixer, RATE: rate}, seed, [measurement("nll", test)], validation, status)


def grid(mixer="full"):
    return [
        tried(mixer, 0.001, 0, test=1.3, validation=1.5),
        tried(mixer, 0.001, 1, test=1.3, validation=1.5),
        tried(mixer, 0.003, 0, test=1.4, validation=1.2),  # worse on test: the choice must not see it
        tried(mixer, 0.003, 1, test=1.4, validation=1.4),
        tried(mixer, 0.01, 0, test=1.0, validation=1.0),
        tried(mixer, 0.01, 1, test=9.0, validation=9.0, status="diverged"),
    ]


def test_the_best_on_validation_is_reported_among_what_most_seeds_survived():
    (stack,) = by_stack(grid())
    assert stack.choices == {MIXER: "full"}
    assert stack.tuning.values == {RATE: 0.003}
    assert stack.find("nll").value == pytest.approx(1.4)
    assert [trial.values[RATE] for trial in stack.tuning.trials] == [0.003, 0.001, 0.01]
    assert stack.tuning.trials[0].validation.value == pytest.approx(1.3)
    assert len(stack.all_records) == 6
    assert stack.tuning.at_the_edge == {}


def test_a_choice_on_the_edge_of_its_grid_is_warned_of():
    stacks = by_stack([*grid()[:2], tried("full", 0.0003, 0, 1.9, 1.9), *grid("linear")])
    assert stacks[0].tuning.at_the_edge == {RATE: 0.001}
    assert warnings(stacks)[0] == (
        "The chosen value is the smallest or largest tried, and a better one may lie beyond: early = full (lr 0.001)."
    )


def test_a_row_that_was_not_tuned_is_warned_of():
    stacks = by_stack([*grid(), tried("linear", 0.003, 0, 1.9, 1.9)])
    assert [stack.choices for stack in stacks] == [{MIXER: "full"}, {MIXER: "linear"}]
    assert stacks[1].tuning.values == {RATE: 0.003}
    assert any(
        line.startswith("Not every stack was tuned: only one setting was tried of early = linear")
        for line in warnings(stacks)
    )


def test_without_a_search_or_without_validation_a_rate_is_a_choice_like_others():
    assert len(by_stack([tried("full", 0.001, 0, 1.0, 1.0), tried("linear", 0.003, 0, 1.0, 1.0)])) == 2
    blind = by_stack([run({MIXER: "full", RATE: rate}, 0, [measurement("nll", 1.0)]) for rate in (0.001, 0.003)])
    assert [stack.choices[RATE] for stack in blind] == [0.001, 0.003]
    assert len(by_stack(grid(), tuned=())) == 3


def test_a_stack_that_diverged_at_every_rate_is_still_one_row():
    lost = [tried("linear", rate, 0, 9.0, 9.0, status="diverged") for rate in (0.001, 0.003, 0.01)]
    stacks = by_stack([*grid(), *lost])
    assert [len(stack.all_records) for stack in stacks] == [6, 3]
    assert stacks[1].finished == ()


def test_other_choices_can_be_tuned():
    records = [
        run({MIXER: "full", "optimizer.decay": decay}, 0, [measurement("nll", decay)], 1 - decay)
        for decay in (0.0, 0.1, 0.3)
    ]
    (stack,) = by_stack(records, tuned=["optimizer.decay"])
    assert stack.tuning.values == {"optimizer.decay": 0.3}


def test_the_report_shows_the_chosen_value_and_every_value_tried():
    found = build.of_records([*grid(), *grid("linear")])
    table = found.sections[0].tables[0]
    assert table.text == ("early", "Runs", "lr")
    assert [line[2] for line in table.bodies[0]] == ["0.003", "0.003"]
    (tuning,) = (section for section in found.sections if section.title == "Tuning")
    assert tuning.tables[0].caption == "lr searched per stack, chosen on validation, reported on test."
    assert [line[1:4] for line in tuning.tables[0].bodies[0]] == [
        ("0.003", "chosen", "2 finished"),
        ("0.001", "", "2 finished"),
        ("0.01", "", "1 finished, 1 diverged"),
    ]
    (unfinished,) = (section for section in found.sections if section.title == "Not finished")
    assert len(unfinished.tables[0].bodies[0]) == 2
