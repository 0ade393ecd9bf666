"""Claims that the runs cannot test, with the number that says so."""

from dataclasses import replace

import pytest

from hybridlab.errors import ConfigError
from hybridlab.records.archive import read_archive
from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.sweeps.claims import HOLDS, IDENTICAL, NOT_TESTABLE, UNDECIDED, decide
from hybridlab.report.sweeps.spec import parse, read_sweep
from hybridlab.report.sweeps.table import of_sweep, reference
from tests.report.examples import measurement, run

TABLE = """
tuned: [optimizer.lr]
table:
  measure: accuracy
  rows: {narrow: {width: 32}, wide: {width: 64}}
  columns: {short: {length: 16}, long: {length: 64}}
claims:
  wide is better: {left: wide, relation: ">", right: narrow%s}
"""
MQAR = "hybridlab.tasks.synthetic.mqar.MQAR"
LRS = (0.1, 0.2, 0.3)


def stacks(*numbers, best=0.2, pairs=4, **measures):
    """Return stacks of width 32 and 64 with these accuracies, three seeds and three rates each."""
    records = []
    for width, accuracy in zip((32, 64), numbers, strict=True):
        for lr in LRS:
            for seed in range(3):
                found = [measurement("accuracy", accuracy + 0.001 * seed)]
                found += [
                    measurement(name, value + 0.001 * seed, **where) for name, value, where in measures.get("more", [])
                ]
                choices = {"stack.width": width, "task.length": 16, "optimizer.lr": lr}
                made = run(choices, seed, found, validation=abs(lr - best) + 1)
                records.append(
                    replace(made, config={"task": {"_target_": MQAR, "pairs": pairs, "length": 16, "batch": 4}})
                )
    return by_stack(records)


def decision(tmp_path, requires, found):
    (tmp_path / "demo.yaml").write_text(TABLE % (f", requires: {requires}" if requires else ""))
    return decide(parse(tmp_path / "demo.yaml").claims, found)[0]


def test_without_preconditions_a_rise_of_less_than_a_guess_holds(tmp_path):
    assert decision(tmp_path, "", stacks(0.10, 0.20)).word == HOLDS


@pytest.mark.parametrize(
    ("requires", "met", "unmet", "why"),
    [
        ("{recall: {above: floor}}", stacks(0.30, 0.40), stacks(0.20, 0.30), "recall 0.1000, a guess 0"),
        ("{recall: {above: floor, of: wide}}", stacks(0.20, 0.30), stacks(0.10, 0.20), "recall 0.1000, a guess 0"),
        (
            "{recall: {above: 0.35}}",
            stacks(0.40, 0.50),
            stacks(0.30, 0.50),
            "narrow (short): recall 0.3010, needs 0.35",
        ),
        (
            "{rate_inside_grid: true}",
            stacks(0.1, 0.2),
            stacks(0.1, 0.2, best=0.3),
            "wide (short): lr 0.3 at the edge of 0.1 to 0.3",
        ),
        (
            "{below_ngram: 3}",
            stacks(
                0.1,
                0.2,
                more=[("bits_per_byte", 2.0, {}), ("ngram_bits_per_byte", 2.7, {"slice": "context", "bucket": "2"})],
            ),
            stacks(
                0.1,
                0.2,
                more=[("bits_per_byte", 2.8, {}), ("ngram_bits_per_byte", 2.7, {"slice": "context", "bucket": "2"})],
            ),
            "2.8010 bits per byte, the 3-gram 2.701",
        ),
        (
            "{reach: {above: 64, of: [wide]}}",
            stacks(0.1, 0.2, more=[("reach", 0.1, {"grouping": "group", "group": "a", "part": "mixer", "block": 64})]),
            stacks(0.1, 0.2, more=[("reach", -0.1, {"grouping": "group", "group": "a", "part": "mixer", "block": 64})]),
            "wide: beyond 64 tokens worth −0.0990 NLL",
        ),
        ("{reach: {above: 64}}", None, stacks(0.1, 0.2), "beyond 64 tokens not measured"),
        ("{below_ngram: 2}", None, stacks(0.1, 0.2), "2-gram not measured"),
    ],
)
def test_a_precondition_is_met_or_the_claim_is_not_testable_with_the_number(tmp_path, requires, met, unmet, why):
    if met is not None:
        assert decision(tmp_path, requires, met).word == HOLDS
    found = decision(tmp_path, requires, unmet)
    assert found.word == NOT_TESTABLE
    assert why in found.why


def test_a_stack_that_was_not_tuned_has_no_rate_inside_a_grid(tmp_path):
    records = [
        run({"stack.width": width, "task.length": 16}, seed, [measurement("accuracy", width / 100 + seed / 1000)])
        for width in (32, 64)
        for seed in range(3)
    ]
    assert "was not tuned" in decision(tmp_path, "{rate_inside_grid: true}", by_stack(records)).why


def test_a_task_that_states_a_floor_is_believed(tmp_path):
    (narrow, wide) = stacks(0.30, 0.40)
    stated = [
        replace(record, hardware={"task": {"floors": {"accuracy": 0.35}}})
        for stack in (narrow, wide)
        for record in stack.all_records
    ]
    assert decision(tmp_path, "{recall: {above: floor}}", by_stack(stated)).word == NOT_TESTABLE
    unknown = [replace(record, config={}) for stack in (narrow, wide) for record in stack.all_records]
    assert "the task states no floor" in decision(tmp_path, "{recall: {above: floor}}", by_stack(unknown)).why


@pytest.mark.parametrize(
    ("requires", "message"),
    [
        ("{recal: {above: floor}}", "`requires.recal`: no such precondition; did you mean `recall`?"),
        ("{recall: {abov: floor}}", "`requires.recall`: no such key `abov`; did you mean `above`?"),
        ("{recall: {above: flor}}", "`above: flor`: must be `floor`, what the task states that a guess reaches, or a"),
        ("{recall: {above: flor}}", "did you mean `floor`?"),
        ("{recall: {above: floor, of: [wid]}}", "no row is called `wid`; did you mean `wide`?"),
        ("{recall: {above: floor, of: []}}", "`of: []`: name the rows, or leave it out"),
        ("{recall: {above: floor, of: wide, column: shrt}}", "no column is called `shrt`; did you mean `short`?"),
        ("{recall: {above: floor, column: short}}", "`column`: goes with `of`"),
        ("{recall: true}", "`above: true`: must be `floor`"),
        ("{reach: {above: far}}", "`above: far`: must be a number of tokens, 1 or more"),
        ("{reach: 0}", "`above: 0`: must be a number of tokens, 1 or more"),
        ("{rate_inside_grid: false}", "`false`: must be true, or a mapping with `of`; else leave it out"),
        ("{rate_inside_grid: {above: 1}}", "no such key `above`; allowed: column, of"),
        ("{below_ngram: 5}", "`5`: must be the n of an n-gram, one of 2, 3, 4"),
        ("[recall]", "`requires`: `['recall']`: must be a mapping"),
        ("{recall: {above: floor}}, across_tasks: 3", "`across_tasks: 3`: must be true or false"),
    ],
)
def test_a_precondition_that_means_nothing_is_refused(tmp_path, requires, message):
    (tmp_path / "demo.yaml").write_text(TABLE % f", requires: {requires}")
    with pytest.raises(ConfigError) as refused:
        parse(tmp_path / "demo.yaml")
    assert message in str(refused.value)


def test_the_fall_of_a_random_guess_says_nothing_of_recall():
    sweep = read_sweep("mqar_width_h100")
    found = of_sweep(sweep, read_archive(reference(sweep.name)))
    claims, unmet = next(section.tables for section in found.sections if section.title == "Claims")
    row = next(line for line in claims.bodies[0] if line[0] == "gated convolutions lose accuracy with length")
    assert " ".join(row[-1].split()) == "not testable here (recall 0.188, a guess 0.1875)"
    assert ("Hyena, wide (short)", "0.256\n[0.242, 0.271]", "above 0.25") in {line[2:] for line in unmet.bodies[0]}
    assert "Training: 1,200 steps" in claims.note


def test_stacks_that_are_the_same_are_named_so(tmp_path):
    (tmp_path / "demo.yaml").write_text(
        "table: {measure: accuracy, rows: {a: {width: 32}, b: {width: 64}}}\n"
        'claims: {a is better: {left: a, relation: ">", right: b}, a is good: {left: a, relation: ">", right: 0.9}}\n'
    )
    records = [
        run({"stack.width": width}, seed, [measurement("accuracy", 0.5 + seed / 7)])
        for width in (32, 64)
        for seed in range(3)
    ]
    same, other = decide(parse(tmp_path / "demo.yaml").claims, by_stack(records))
    assert (same.word, same.why) == (IDENTICAL, "all their numbers are the same, with every seed")
    assert other.word == UNDECIDED


def test_an_undecided_claim_has_the_seeds_that_would_decide_it(tmp_path):
    (tmp_path / "demo.yaml").write_text(
        "table: {measure: accuracy, rows: {a: {width: 32}}}\nclaims: {a is good: {left: a, relation: '>', right: 0.5}}\n"
    )
    noisy = [
        replace(run({"stack.width": 32}, seed, [measurement("accuracy", 0.6 + noise)]), seconds=60.0)
        for seed, noise in enumerate((-0.1, 0.0, 0.1))  # a mean of one standard deviation: ten seeds
    ]
    found = of_sweep(parse(tmp_path / "demo.yaml"), noisy)
    (row,) = found.sections[1].tables[0].bodies[0]
    assert row[-2:] == ("10\n+7 min", "undecided")
    assert row[4].endswith("p 0.23")
    assert row[6].endswith("p 0.23")
