"""`hybridlab measures`, and the table of docs/measures.md that is made of the same classes."""

from pathlib import Path

from hybridlab.config import measure_files
from hybridlab.measure_catalogue import all_measures, markdown

ROOT = Path(__file__).parents[1]


def test_every_measure_is_printed_with_its_unit_and_source(hybridlab):
    outcome = hybridlab("measures")
    assert outcome.code == 0
    words = " ".join(outcome.out.split())
    for measure in all_measures():
        assert measure.name in words
        assert measure.unit in words
        assert measure.source.split()[0] in words


def test_the_named_measures_come_first_and_each_once():
    names = [measure.name for measure in all_measures()]
    assert names[: len(measure_files())] == list(measure_files())
    assert len(set(names)) == len(names)


def test_the_docs_have_the_table_of_all_measures():
    assert (ROOT / "docs" / "measures.md").read_text().endswith(markdown())
