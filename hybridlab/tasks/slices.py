"""Slices: facts about the targets, declared by each task, that measures can be broken down by."""

from typing import NamedTuple

EACH_VALUE, POWERS_OF_TWO, SAMPLING_UNIT = "each value", "powers of two", "sampling unit"


class Slice(NamedTuple):
    """One fact about each target: its name, what it means, and how its values are put into buckets.

    `EACH_VALUE` has a bucket for each value, with `labels` as words for the values 0, 1, ...;
    `POWERS_OF_TWO` has one for the values below `first`, then one from each `first` x 2^k to the
    next; `SAMPLING_UNIT` has one for each document or example, and is used only on request. A
    target whose value is below 0 is in no bucket.
    """

    name: str
    definition: str
    buckets: str = EACH_VALUE
    first: int = 1
    labels: tuple[str, ...] = ()
    prominent: bool = False  # shown in the terminal, not only in report.md and on the page


DOCUMENT = Slice("document", "the document or the example: the sampling unit of intervals", SAMPLING_UNIT)
POSITION = Slice("position", "position of the target in its document, counted from 0", POWERS_OF_TWO, first=64)
RELATIVE_POSITION = Slice(
    "relative_position",
    "position of the target in its document, in training lengths",
    labels=("0-1x", "1-2x", "2-4x", "4-8x", "8x-"),
)
LENGTH = Slice("length", "tokens of the example", POWERS_OF_TWO, first=16)
DISTANCE = Slice("distance", "tokens between the target and the position that determines it", POWERS_OF_TWO)
RECALL = Slice(
    "recall",
    "whether the target completes an n-gram that its document has shown before and that is rare in training",
    labels=("other tokens", "recall"),
    prominent=True,
)
RECALL_DISTANCE = Slice(
    "recall_distance", "tokens since the n-gram that a recall target completes was last seen", POWERS_OF_TWO
)
