import pytest

from hybridlab.errors import ConfigError
from hybridlab.report.runs.choices import choose_base, distinguishing_keys, label, short_names
from hybridlab.report.runs.stack_runs import by_stack
from tests.records.examples import small_record
from tests.report.examples import example

EARLY, DEEP = "stack.groups.early.mixer", "stack.groups.deep.mixer"


def stacks_of(*choices):
    return by_stack(small_record(run_id=str(place), choices=chosen) for place, chosen in enumerate(choices))


def test_runs_of_one_stack_are_put_together():
    stacks = by_stack([example(seed=0), example(early="full"), example(seed=1)])
    assert [[record.seed for record in stack.records] for stack in stacks] == [[0, 1], [0]]


def test_only_what_tells_stacks_apart_is_named():
    stacks = by_stack([example(), example(early="full"), example(deep="full")])
    assert distinguishing_keys(stacks) == [EARLY, DEEP]
    assert label(stacks[1], distinguishing_keys(stacks)) == "early = full, deep = sliding"
    assert distinguishing_keys(stacks[:1]) == []


@pytest.mark.parametrize(
    ("choices", "named"),
    [
        (
            [
                {EARLY: "full", "task.length": 64, "evaluation.window": 64},
                {EARLY: "full", "task.length": 128, "evaluation.window": 128},
            ],
            ["task.length"],
        ),
        ([{EARLY: "full", DEEP: "full"}, {EARLY: "linear", DEEP: "linear"}], [EARLY, DEEP]),
        ([{EARLY: "full"}, {EARLY: "sliding", "stack.groups.early.settings.sliding.window": 128}], [EARLY]),
        ([{"stack.width": 128}, {"stack.width": 128, "stack.channel": None}], ["stack.channel"]),
    ],
)
def test_what_comes_with_another_choice_is_not_named(choices, named):
    assert distinguishing_keys(stacks_of(*choices)) == named


def test_headings_are_short_and_different():
    keys = [EARLY, "stack.groups.early.settings.sliding.window", "optimizer.lr", "a.length", "b.length"]
    assert list(short_names(keys).values()) == ["early", "early window", "lr", "a.length", "b.length"]


def test_the_base_is_the_first_made_stack_with_finished_runs():
    failed, first, second = example(early="linear", status="failed"), example(), example(early="full")
    stacks = by_stack([failed, first, second])
    assert choose_base(stacks, None) is stacks[1]
    assert choose_base(stacks, "early=full") is stacks[2]
    assert choose_base(stacks, f"{EARLY}=full, deep=sliding") is stacks[2]
    assert choose_base(stacks, "early=linear") is stacks[0]


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("early", "`base=early`: each term must be a choice and its value, e.g. early=full"),
        ("erly=full", "`base=erly=full`: no choice is called `erly`; did you mean `early`?"),
        ("early=ful", "`base=early=ful`: no run has `early=ful`; did you mean `full`?"),
        ("early=full,deep=full", "`base=early=full,deep=full`: each term matches runs, but no run matches all of them"),
    ],
)
def test_a_base_that_is_no_stack_is_refused(base, message):
    stacks = by_stack([example(), example(early="full"), example(deep="full")])
    with pytest.raises(ConfigError) as refused:
        choose_base(stacks, base)
    assert str(refused.value) == message
