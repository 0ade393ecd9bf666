"""Runs that do not compare stand in tables of their own, and the training stands in every table."""

from dataclasses import replace

import pytest

from hybridlab.records.archive import read_archive
from hybridlab.report import as_html, as_markdown, build
from hybridlab.report.figures.select import draw
from hybridlab.report.runs.budget import training_in_words, training_of
from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.sweeps.spec import parse
from hybridlab.report.sweeps.table import of_sweep, reference
from tests.report.examples import example, measurement, run


def evaluated(record, key="a", **stated):
    """Return a record whose numbers are of one evaluation."""
    entry = {**record.evaluation, **stated}
    rows = [replace(each, evaluation=key if each.split == "test" else "") for each in record.measurements]
    return replace(record, evaluations={key: entry}, measurements=rows)


def two(one, other, seeds=(0, 1)):
    records = [evaluated(example(early="full", seed=seed), **one) for seed in seeds]
    return records + [evaluated(example(early="linear", seed=seed), **other) for seed in seeds]


def titles(found):
    return [section.title for section in found.sections]


def test_runs_that_were_scored_on_other_text_are_not_ranked_together():
    found = build.of_records(two({"scored": "1" * 64, "bytes": 1024}, {"scored": "2" * 64, "bytes": 4096}))
    assert titles(found)[:2] == ["Table 1", "Stacks, table 1"]
    assert "Stacks, table 2" in titles(found)
    assert not any(title.startswith("Swaps") for title in titles(found))
    assert "stand in 2 tables and are not compared across them" in found.warnings[0]
    assert "1,024 bytes" in found.warnings[0]
    assert "4,096 bytes" in found.warnings[0]
    assert {"stacks", "stacks_2"} <= set(draw(found.figures))
    assert "Stacks, table 2" in as_markdown(found)
    assert "Stacks, table 2" in as_html(found)


def test_equal_digests_compare_whatever_the_tokeniser():
    records = two({"scored": "1" * 64}, {"scored": "1" * 64, "tokens": 30_000})
    assert titles(build.of_records(records))[:2] == ["Stacks", "Swaps"]


def test_old_records_of_a_tokeniser_with_a_limit_in_tokens_do_not_compare():
    records = []
    for early, tokeniser in (("full", "bytes"), ("linear", "bpe.json")):
        record = example(early=early)
        records.append(replace(record, config=record.config | {"task": {"length": 512, "tokeniser": tokeniser}}))
    found = build.of_records([evaluated(record) for record in records])
    assert "tokeniser bytes against table 2" in found.warnings[0]
    whole = build.of_records([evaluated(record, limit=None) for record in records])
    assert titles(whole)[0] == "Stacks"


def test_a_seed_that_was_scored_on_other_text_is_no_seed_of_the_stack():
    records = [evaluated(example(seed=seed), scored="12"[seed] * 64) for seed in (0, 1)]
    assert [len(stack.finished) for stack in by_stack(records)] == [1, 1]


def test_a_run_that_is_not_scored_yet_stands_with_its_stack():
    waiting = example(early="full", seed=2, status="failed", reason="no memory", evaluations={})
    stacks = by_stack([*two({"scored": "1" * 64}, {"scored": "1" * 64}), waiting])
    assert [len(stack.records) for stack in stacks] == [3, 2]


def test_of_several_evaluations_the_one_that_most_runs_have_is_shown_and_none_are_mixed():
    records = two({"key": "a", "scored": "1" * 64}, {"key": "a", "scored": "1" * 64})
    again = records[0]
    later = [replace(each, value=each.value + 1, evaluation="b") for each in again.measurements if each.evaluation]
    both = {**again.evaluations, "b": {**again.evaluation, "scored": "3" * 64}}
    records[0] = replace(again, evaluations=both, measurements=[*again.measurements, *later])
    found = build.of_records(records)
    plain = build.of_records([again, *records[1:]])
    assert found.sections == plain.sections
    assert "a: test split" in found.warnings[0]
    assert "those of others are in the records (b: " in found.warnings[0]
    only = build.of_records([records[0]])  # of one run, the latest
    assert only.headline[0].value != build.of_records([again]).headline[0].value


def test_budgets_of_other_kinds_are_not_ranked_together():
    records = two({}, {})
    for record in records:
        seconds = record.choices["stack.groups.early.mixer"] == "full"
        budget = {"seconds": 600.0} if seconds else {"steps": 400}
        record.training = {
            "budget": budget,
            "steps": 400,
            "tokens": 1e6,
            "epochs": 0.5,
            "seconds": 600.0,
            "device": "CPU",
        }
    found = build.of_records(records)
    assert "a training budget of seconds" in found.warnings[0]
    assert "Stacks, table 2" in titles(found)


def test_unlike_amounts_are_said_and_ranked():
    records = two({}, {})
    for record in records[:2]:
        record.training = {
            "budget": {"steps": 800},
            "steps": 800,
            "tokens": 3_276_800,
            "seconds": 60.0,
            "device": "CPU",
        }
    found = build.of_records(records)
    (said,) = [warning for warning in found.warnings if "equally long" in warning]
    assert "800 steps (early = full); 400 steps (early = linear)" in said
    table = found.sections[0].tables[0]
    assert table.numbers[0] == "Training"
    assert {row[2] for row in table.bodies[0]} == {"800 steps\n3.28M tokens", "400 steps\n1.64M tokens"}


def test_the_training_stands_in_every_table_of_numbers():
    for records in ([example()], two({}, {})):
        found = build.of_records(records)
        assert "Training: 400 steps; 1.64M tokens" in found.statement
        tables = [table for section in found.sections for table in section.tables if table.numbers]
        apart = [table for table in tables if "Training: 400 steps" not in table.note]
        assert apart == []


def test_the_training_of_an_old_record_comes_from_its_settings():
    old = training_of(read_archive(reference("recall_slices_h100"))[0])
    assert (old.budget, old.steps, old.tokens, old.device) == (
        "400 steps",
        400,
        400 * 16 * 1024,
        "NVIDIA H100 80GB HBM3",
    )
    assert old.epochs == pytest.approx(400 * 16 * 1024 / 8_659_489)
    assert "7 seconds" not in training_in_words(by_stack([example()]))


@pytest.mark.parametrize(("name", "number"), [("ratio_h100", 5), ("recall_slices_h100", 8)])
def test_matched_stacks_keep_their_swaps_and_names(name, number):
    found = build.of_records(read_archive(reference(name)))
    (table,) = next(section for section in found.sections if section.title == "Swaps").tables
    assert sum(map(len, table.bodies)) == number
    assert found.sections[0].tables[0].text == ("all", "Runs", "lr")
    details = next(section for section in found.sections if section.folded)
    (note,) = (table.note for table in details.tables if table.note.startswith("Derived, set by `stack.match`"))
    assert "channel.expansion=2.66" in note


def test_a_truncated_run_is_shown_alone_and_never_compared():
    measured = example()
    cut = replace(measured, status="truncated", reason="early stopping after 120 of 400 steps")
    alone = build.of_records([cut])
    assert alone.headline == build.of_records([measured]).headline
    assert "truncated, early stopping after 120 of 400 steps." in alone.warnings[0]
    among = build.of_records([cut, *(example(early="full", seed=seed) for seed in (0, 1))])
    row = next(row for row in among.sections[0].tables[0].bodies[0] if row[1] == "1 truncated")
    assert row[2] == "–"
    assert "early stopping after 120 of 400 steps" in as_markdown(among)


def test_a_measure_without_a_value_is_listed_with_its_reason():
    lacking = example(missing={"milliseconds": "RuntimeError: no kernel for bfloat16"})
    for records in ([lacking], [lacking, example(early="full")]):
        found = build.of_records(records)
        (section,) = [section for section in found.sections if section.title == "Not measured"]
        assert section.tables[0].bodies[0][0][2:4] == (
            "milliseconds",
            "not measured: RuntimeError: no kernel for bfloat16",
        )


def test_a_claim_over_other_text_is_not_testable_unless_it_is_about_that(tmp_path):
    text = """
table: {measure: nll, rows: {a: {width: 32}, b: {width: 64}}}
claims: {a is better: {left: a, relation: <, right: b%s}}
"""
    records = []
    for width in (32, 64):
        for seed in range(3):
            record = run({"stack.width": width}, seed, [measurement("nll", width + 0.01 * seed)])
            records.append(evaluated(record, split="test", scored=f"{width}", bytes=width))
    for more, word in (("", "not testable here"), (", across_tasks: true", "holds")):
        (tmp_path / "demo.yaml").write_text(text % more)
        found = of_sweep(parse(tmp_path / "demo.yaml"), records)
        assert found.sections[1].tables[0].bodies[0][0][-1].startswith(word)
        assert any("were scored on other text and do not compare" in warning for warning in found.warnings)
