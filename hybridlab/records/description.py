"""What the names in a record mean: kept beside the numbers, so that whoever reads them needs no
list.
"""

from typing import Literal, NamedTuple

Direction = Literal["lower", "higher", ""]


class MeasureDescription(NamedTuple):
    """What one measure is: its unit, its definition, and which direction is better, if tables rank
    by it.
    """

    unit: str
    definition: str
    source: str = ""  # the paper, or how it was obtained
    better: Direction = ""
    title: str = ""  # the heading of its column; a line break is where the heading may be cut
    compared: str = ""  # the measure by which the difference between two stacks is tested, if not this one


class SliceDescription(NamedTuple):
    """What one slice is, and the buckets that hold any target, in their order."""

    definition: str
    buckets: tuple[str, ...] = ()
    prominent: bool = False  # shown in the terminal, not only in report.md and on the page
