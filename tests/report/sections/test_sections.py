import re
import sys

import pytest

from hybridlab.records.description import MeasureDescription, SliceDescription
from hybridlab.report import as_html, build, sections
from hybridlab.report.build import sections_of
from hybridlab.report.runs.stack_runs import by_stack
from hybridlab.report.sections.grids import Column, by_bucket, by_group
from tests.report.descriptions import MEASURES
from tests.report.examples import example, fully_evaluated, measurement, run
from tests.report.test_report import terminal

FURTHER = "Other measures by layer group"


@pytest.fixture(scope="module")
def record():
    return fully_evaluated(example())


@pytest.fixture(scope="module")
def titled(record):
    (stack,) = by_stack([record])
    return {section.title: section for section in sections_of(stack)}


def cells(section, *, tables=slice(None)):
    """Return the numbers of a section's tables by row and column, without their intervals."""
    return {
        (line[0], title.replace("\n", " ")): cell.partition("\n")[0]
        for table in section.tables[tables]
        for body in table.bodies
        for line in body
        for title, cell in zip(table.numbers, line[len(table.text) :], strict=True)
    }


def value(record, name):
    return next(each.value for each in record.measurements if each.name == name and each.step is None)


def number(text):
    return float(text.replace("−", "-"))


@pytest.mark.parametrize(
    ("section", "at", "name"),
    [
        (FURTHER, ("early", "Mean ablation of mixers"), "test/mean_knockout/group/early/mixer"),
        (FURTHER, ("sliding", "Mean ablation of channel mixers"), "test/mean_knockout/mixer/sliding/channel"),
        (FURTHER, ("deep", "Tuned lens NLL"), "test/tuned_lens/group/deep"),
        (FURTHER, ("middle", "Reach (tokens) of mixers"), "test/reach_tokens/group/middle/mixer"),
        (FURTHER, ("deep", "Attention entropy (nats)"), "test/attention_entropy/group/deep"),
        ("Layer by layer", ("layer 3", "Block influence"), "test/block_influence/layer/3"),
        ("Reach", ("middle", "64"), "test/reach/group/middle/mixer/block 64"),
        ("Effective memory", ("16–31", "deep"), "test/influence/group/deep/lag/16-31"),
        ("Attention", ("layer 3", "Entropy (nats)"), "test/attention_entropy/layer/3"),
        ("Interactions", ("early & deep", "Channel mixers"), "test/interaction/pair/early & deep/channel"),
        ("Redundancy", ("layer 6", "Block influence"), "test/block_influence/layer/6"),
        ("By recall", ("recall", "Zero ablation middle"), "test/knockout/group/middle/mixer/recall/recall"),
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
    rows = [
        measurement("knockout", 0.1 * layer, grouping="layer", group=str(layer), part="mixer") for layer in range(3)
    ]
    (stack,) = by_stack([run({}, 0, [measurement("nll", 1.0), *rows])])
    section = next(section for section in sections_of(stack) if section.title == "Layer by layer")
    assert section.tables[0].numbers == ("Zero ablation\nof mixers",)
    assert [line[0] for line in section.tables[0].bodies[0]] == ["layer 0", "layer 1", "layer 2"]


def test_a_document_read_whole_stands_beside_its_windows():
    told = [{"slice": "position", "bucket": bucket} for bucket in ("0-63", "64-127")]
    rows = [measurement(name, 1.0, **where) for name in ("nll", "streamed_nll") for where in ({}, *told)]
    (stack,) = by_stack([run({}, 0, rows)])
    section = next(section for section in sections_of(stack) if section.title == "Quality by position")
    assert section.tables[0].numbers == ("Tokens", "NLL\n(nats/token)", "NLL streamed\n(nats/token)")


def test_the_likeness_of_groups_is_a_symmetric_matrix(titled):
    found = cells(titled["Redundancy"], tables=slice(1, 2))
    assert found["early", "deep"] == found["deep", "early"] == "0.400"
    assert found["middle", "middle"] == "1.00"


def test_what_was_not_measured_has_no_section():
    (stack,) = by_stack([example()])
    titles = [section.title for section in sections_of(stack)]
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


def test_buckets_are_in_the_order_of_the_records():
    orders = [("other tokens", "recall"), ("other tokens", "rare", "recall", "new")]
    records = []
    for seed, order in enumerate(orders):
        found = [measurement("nll", 1.0, slice="recall", bucket=bucket) for bucket in order[::-1]]
        records.append(run({}, seed, [measurement("nll", 1.0)]))
        records[-1].measurements += found
        records[-1].slices["recall"] = SliceDescription("recall of the target", order)
    (stack,) = by_stack(records)
    assert stack.slices["recall"].buckets == ("other tokens", "rare", "recall", "new")
    assert stack.in_order("recall", ["new", "recall", "other tokens"]) == ["other tokens", "recall", "new"]
    assert stack.buckets_of("recall", "nll") == ["other tokens", "recall"]
    section = next(section for section in sections_of(stack) if section.title == "By recall")
    assert [line[0] for line in section.tables[0].bodies[0]] == ["other tokens", "recall"]


def test_a_slice_of_a_users_own_has_a_section_and_is_in_the_terminal_if_it_is_prominent():
    found = [
        measurement("nll", value, slice="speaker", bucket=name) for name, value in (("chorus", 1.5), ("lead", 1.2))
    ]
    record = run({}, 0, [measurement("nll", 1.4)])
    record.measurements += found
    for prominent in (True, False):
        record.slices["speaker"] = SliceDescription("who speaks the target", ("lead", "chorus"), prominent)
        (stack,) = by_stack([record])
        (section,) = [section for section in sections_of(stack) if section.title == "By speaker"]
        assert section.detail is not prominent
        assert [line[0] for line in section.tables[0].bodies[0]] == ["lead", "chorus"]
        assert section.tables[0].caption.startswith("By who speaks the target; ")


NORM = MeasureDescription("1", "norm of what the layers add", title="Norm")
SHUFFLED = MeasureDescription("nats/token", "NLL added by shuffling their inputs", title="Shuffling")
F1 = MeasureDescription("1", "balanced F1", better="higher", title="F1")
TEMPERATURE = MeasureDescription("1", "temperature with the lowest NLL")
OWN = {**MEASURES, "norm": NORM, "shuffled": SHUFFLED, "f1": F1, "temperature": TEMPERATURE}


@pytest.fixture
def own():
    """Return runs of two stacks with measures that nothing in the report names."""

    def of(mixer, seed):
        early = {"grouping": "group", "group": "early"}
        found = [
            measurement("nll", 1.0),
            measurement("f1", 0.625, measures=OWN),
            measurement("temperature", 1.25 + seed / 100, measures=OWN),
            measurement("norm", 0.875, measures=OWN, **early),
            measurement("norm", 0.5, measures=OWN, grouping="layer", group="0"),
            measurement("shuffled", 0.75, measures=OWN, **early, part="mixer"),
            measurement("shuffled", 0.25, measures=OWN, **early, part="channel"),
        ]
        return run({"stack.groups.early.mixer": mixer}, seed, found, measures=OWN)

    return [of(mixer, seed) for mixer in ("full", "linear") for seed in (0, 1)]


def test_a_measure_of_a_users_own_is_shown_without_any_code(own):
    (stack,) = by_stack(own[:2])
    titled = {section.title: section for section in sections_of(stack)}
    assert cells(titled[FURTHER]) == {
        ("early", "Norm"): "0.875",
        ("early", "Shuffling of mixers"): "+0.7500",
        ("early", "Shuffling of channel mixers"): "+0.2500",
    }
    assert "Shuffling: NLL added by shuffling their inputs." in titled[FURTHER].tables[0].note
    assert cells(titled["Layer by layer"])["layer 0", "Norm"] == "0.500"
    ((line,),) = titled["Other measures"].tables[0].bodies
    assert line[:2] == ("temperature", "temperature with the lowest NLL")
    assert line[2].startswith("1.25")
    assert "F1" in [fact.label for fact in build.of_records(own[:2]).headline]
    rows = {line[0]: line[1:] for line in titled["Measures"].tables[0].bodies[0]}
    assert rows["f1"] == ("F1", "1", "balanced F1", "higher is better", "")
    assert rows["norm"][3] == "–"


def test_several_stacks_show_a_users_own_measures(own):
    titled = {section.title: section for section in build.of_records(own).sections}
    assert cells(titled["Stacks"])["linear", "F1"].startswith("0.625")
    assert {row for row, _ in cells(titled["Other measures"])} == {"full", "linear"}
    assert "Norm" in titled["early = linear"].tables[2].numbers


def test_a_new_section_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from hybridlab.report.content import Section\n"
        "ORDER = 5\n"
        "def section(stack): return [Section(title=f'Mine, of {len(stack.finished)}')]\n"
        "def comparison(stacks, base): return [Section(title=f'Mine, of {len(stacks)} stacks')]\n"
    )
    before = build.of_records([example()]).sections
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "hybridlab.report.sections.mine", raising=False)
    one, *rest = build.of_records([example()]).sections
    assert (one.title, tuple(rest)) == ("Mine, of 1", before)
    assert build.of_records([example(), example(early="full")]).sections[0].title == "Mine, of 2 stacks"
    del sys.modules["hybridlab.report.sections.mine"]


def test_a_table_of_nothing_is_no_table():
    (stack,) = by_stack([example(status="failed")])
    assert by_group(stack, "", [Column("", "reach")]) is None
    assert by_bucket(stack, "lag", "", [Column("", "influence")], "") is None


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_terminal_shows_the_few_that_matter_and_the_page_all(seeds):
    found = build.of_records([fully_evaluated(example(seed=seed)) for seed in range(seeds)])
    text = terminal(found)
    assert max(map(len, text.splitlines())) <= 100
    assert re.search(r"^recall +5\.65k", text, re.MULTILINE)
    assert "Linear CKA" not in text
    page = as_html(found)
    assert "Linear CKA" in page
    assert page.count("<svg ") == 7
    assert len(page) < 600_000
