"""Every mixer against layers that were not written for it: outputs and all gradients; their table
in docs/mixers.md."""

import re
from importlib.metadata import PackageNotFoundError, version

import pytest

from tests.mixers.reference import Reference, all_references
from tests.mixers.reference_table import committed, table
from tests.mixers.subject import CONF

CASES = [
    pytest.param(
        each,
        number,
        id=f"{each.mixer}-{each.__name__}-{','.join(f'{key}={value}' for key, value in settings.items())}",
        marks=[pytest.mark.slow] if each.slow else [],
    )
    for each in all_references()
    for number, settings in enumerate(each.cases)
]


@pytest.mark.parametrize(("reference", "case"), CASES)
def test_layer_is_that_of_the_reference(reference: type[Reference], case: int) -> None:
    if reference.package is not None:
        try:
            version(reference.package)
        except PackageNotFoundError:
            pytest.skip(f"{reference.package} is not installed: it comes with hybridlab[test]")
    assert reference.largest_difference(reference.cases[case]) <= reference.bound


def test_every_mixer_has_a_reference() -> None:
    named = {file.stem for file in CONF.glob("*.yaml")} - {"identity"}
    assert {each.mixer for each in all_references()} == named


def test_the_docs_have_the_table_of_all_references() -> None:
    """Its differences were measured on one machine; they must have been within the bounds."""
    rows, present = (text.splitlines()[2:] for text in (committed(), table(lambda _: "-")))
    assert [without_figures(row) for row in rows] == [without_figures(row) for row in present]
    for row in rows:
        difference, bound = (float(cell) for cell in row.split(" | ")[3:5])
        assert difference <= bound


def without_figures(row: str) -> str:
    """Return a row without its difference and the versions of packages."""
    cells = row.split(" | ")
    return " | ".join([cells[0], re.sub(r"(, \S+) \d+\.[\w.]+$", r"\1", cells[1]), cells[2], *cells[4:]])
