"""The table of references in docs/mixers.md.

`python -m tests.mixers.reference_table` measures all of them and writes it, in about a minute.
"""

import math
from collections.abc import Callable
from pathlib import Path

from tests.mixers.reference import Reference, all_references

PAGE = Path(__file__).parents[2] / "docs" / "mixers.md"
HEADER = (
    "| mixer | reference | compared | largest difference | bound | differs by choice |\n|---|---|---|---|---|---|\n"
)


def table(difference: Callable[[type[Reference]], str]) -> str:
    """Return the table, with `difference` of each reference."""
    return HEADER + "".join(_row(each, difference(each)) for each in all_references())


def committed() -> str:
    """Return the table of the page."""
    text = PAGE.read_text()
    lines = text[text.index(HEADER) :].splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return "".join(lines[:end])


def measured(reference: type[Reference]) -> str:
    """Return the largest difference over all cases, rounded up to one digit."""
    largest = max(reference.largest_difference(settings) for settings in reference.cases)
    if largest == 0:
        return "0"
    unit = 10.0 ** math.floor(math.log10(largest))
    return f"{math.ceil(largest / unit) * unit:.0e}"


def _row(reference: type[Reference], difference: str) -> str:
    bound = f"{reference.bound:.0e}"
    cells = (f"`{reference.mixer}`", reference.title(), reference.compared, difference, bound, reference.choices)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(PAGE.read_text().replace(committed(), table(measured)))
