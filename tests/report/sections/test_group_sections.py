import re

import pytest

from hybridlab.report import build
from hybridlab.report.runs.stack_runs import by_stack, in_order
from hybridlab.report.sections.grids import Column, by_bucket, by_place
from hybridlab.report.sections.one_stack import sections
from tests.report.examples import asked_everything, example, row, run
from tests.report.test_report import terminal


@pytest.fixture(scope="module")
def record():
    return asked_everything(example())


@pytest.fixture(scope="module")
def titled(record):
    (stack,) = by_stack([record])
    return {section.title: section for section in sections(stack)}


def cells(section, place=0):
    """Return the numbers of a section's table by row and column, without their intervals."""
    table = section.tables[place]
    return {
        (line[0], title.replace("\n", " ")): cell.partition("\n")[0]
        for body in table.bodies
        for line in body
        for title, cell in zip(table.numbers, line[len(table.text) :], strict=True)
    }


def value(record, name):
    return next(row.value for row in record.measurements if row.name == name and row.step is None)


def number(text):
    return float(text.replace("−", "-"))


@pytest.mark.parametrize(
    ("section", "at", "name"),
    [
        ("Probes by layer group", ("early", "Mean knockout of mixers"), "test/mean_knockout/group/early/mixer"),
        (
            "Probes by layer group",
            ("sliding", "Mean knockout of channel mixers"),
            "test/mean_knockout/mixer/sliding/channel",
        ),
        ("Probes by layer group", ("deep", "Tuned lens NLL"), "test/tuned_lens/group/deep"),
        ("Probes by layer group", ("middle", "Reach (tokens)"), "test/reach_tokens/group/middle/mixer"),
        ("Reach", ("middle", "64"), "test/reach/group/middle/mixer/block 64"),
        ("Effective memory", ("16–31", "deep"), "test/influence/group/deep/lag/16-31"),
        ("Attention", ("layer 3", "Entropy (nats)"), "test/attention_entropy/layer/3"),
        ("Interactions", ("early & deep", "Channel mixers"), "test/interaction/pair/early & deep/channel"),
        ("Redundancy", ("layer 6", "Block influence"), "test/block_influence/layer/6"),
        ("By recall", ("recall", "knockout middle"), "test/knockout/group/middle/mixer/recall/recall"),
        ("By recall", ("other tokens", "Bits per byte"), "test/bits_per_byte/recall/other tokens"),
        ("By distance", ("64–127", "NLL (nats/token)"), "test/nll/distance/64-127"),
    ],
)
def test_each_number_of_a_table_is_the_one_that_was_measured(record, titled, section, at, name):
    assert number(cells(titled[section])[at]) == pytest.approx(value(record, name), abs=1e-3)


def test_a_layer_that_does_not_attend_has_no_row_in_the_attention_table(titled):
    rows = {row for row, _ in cells(titled["Attention"])}
    assert rows == {"middle", "deep", "full", "sliding", "layer 3", "layer 5", "layer 6"}


def test_a_layer_of_its_own_is_asked_for_by_name():
    rows = [row("knockout", 0.1 * layer, grouping="layer", group=str(layer), part="mixer") for layer in range(3)]
    (stack,) = by_stack([run({}, 0, [row("nll", 1.0), *rows])])
    section = next(section for section in sections(stack) if section.title == "Layer by layer")
    assert section.tables[0].numbers == ("Knockout of\nmixer",)
    assert [line[0] for line in section.tables[0].bodies[0]] == ["layer 0", "layer 1", "layer 2"]


def test_a_document_read_whole_stands_beside_its_windows():
    told = [{"slice": "position", "bucket": bucket} for bucket in ("0-63", "64-127")]
    rows = [row(name, 1.0, **where) for name in ("nll", "streamed_nll") for where in ({}, *told)]
    (stack,) = by_stack([run({}, 0, rows)])
    section = next(section for section in sections(stack) if section.title == "Quality by position")
    assert section.tables[0].numbers == ("Tokens", "NLL\n(nats/token)", "NLL streamed\n(nats/token)")


def test_the_likeness_of_groups_is_a_symmetric_matrix(titled):
    found = cells(titled["Redundancy"], place=1)
    assert found["early", "deep"] == found["deep", "early"] == "0.400"
    assert found["middle", "middle"] == "1.00"


def test_what_was_not_measured_has_no_section():
    (stack,) = by_stack([example()])
    titles = [section.title for section in sections(stack)]
    assert titles == [
        "Quality by layer group",
        "Against n-gram models",
        "Quality by position",
        "Layer groups by position",
        "Training",
        "Plan",
        "Runs",
        "Measures",
        "Resolved configuration",
    ]


def test_buckets_stand_in_their_order():
    assert in_order("recall", ["recall", "other tokens"]) == ["other tokens", "recall"]
    assert in_order("distance", ["1024-2047", "0", "4-7"]) == ["0", "4-7", "1024-2047"]
    assert in_order("relative_position", ["8x-", "0-1x", "2-4x"]) == ["0-1x", "2-4x", "8x-"]
    assert in_order("depth", ["10", "2"]) == ["2", "10"]


def test_a_table_of_nothing_is_no_table():
    (stack,) = by_stack([example(status="failed")])
    assert by_place(stack, "", [Column("", "reach")]) is None
    assert by_bucket(stack, "lag", "", [Column("", "influence")], "") is None


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_terminal_shows_the_few_that_matter_and_the_page_all(seeds):
    found = build.of_records([asked_everything(example(seed=seed)) for seed in range(seeds)])
    text = terminal(found)
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"^recall +5\.65k", text, re.MULTILINE)
    assert "Linear CKA" not in text
    page = found.html()
    assert "Linear CKA" in page
    assert page.count("<svg ") == 7
    assert len(page) < 600_000
