"""The table of references in docs/mixers.md.

`python -m tests.mixers.reference_table` measures all of them and writes it.
"""

import math
from pathlib import Path

from tests.mixers.reference import Reference, all_references

PAGE = Path(__file__).parents[2] / "docs" / "mixers.md"
HEADER = """\
| mixer | reference | compared | largest difference | bound | differs by choice |
|---|---|---|---|---|---|
"""


def row(reference: type[Reference], difference: str) -> str:
    """Return a reference's line of the table."""
    bound = f"{reference.bound:.0e}"
    cells = (f"`{reference.mixer}`", reference.title(), reference.compared, difference, bound, reference.choices)
    return f"| {' | '.join(cells)} |\n"


def measured(reference: type[Reference]) -> str:
    """Return the largest difference over all cases, rounded up to one digit."""
    largest = max(reference.largest_difference(settings) for settings in reference.cases)
    if largest == 0:
        return "0"
    unit = 10.0 ** math.floor(math.log10(largest))
    return f"{math.ceil(largest / unit) * unit:.0e}"


def write() -> None:
    """Replace the table at the end of the page."""
    text = PAGE.read_text()
    assert HEADER in text, f"{PAGE.name} has no table of references"
    rows = [row(each, measured(each)) for each in all_references()]
    PAGE.write_text(text[: text.index(HEADER)] + HEADER + "".join(rows))


if __name__ == "__main__":
    write()
