"""Every way in which a measure may be broken down: which facts about a target there are, and how they are put in buckets."""

from typing import NamedTuple

EXACT, POWERS, UNITS = "each value", "powers of two", "by document"


class Slice(NamedTuple):
    """What one name among the slices means.

    `first` is where powers of two begin: what lies below it shares a bucket. `labels` are words for the values 0, 1, ...
    of a slice that has a bucket for each value.
    """

    buckets: str  # EXACT | POWERS | UNITS
    definition: str
    first: int = 1
    labels: tuple[str, ...] = ()


SLICES = {
    "document": Slice(UNITS, "the document or the example: the sampling unit of intervals, a bucket each on request"),
    "position": Slice(POWERS, "place of the target in its document, counted from 0", first=64),
    "relative_position": Slice(
        EXACT,
        "place of the target in its document, in training lengths",
        labels=("0-1x", "1-2x", "2-4x", "4-8x", "8x-"),
    ),
    "length": Slice(POWERS, "tokens of the example", first=16),
    "pairs": Slice(EXACT, "key-value pairs in the example"),
    "distance": Slice(POWERS, "tokens between the target and the place that tells it"),
    "depth": Slice(EXACT, "where in the document the needle lies, in tenths of it"),
    "recall": Slice(
        EXACT,
        "whether the target completes an n-gram that its document has shown before, and training documents seldom do",
        labels=("other tokens", "recall"),
    ),
    "recall_distance": Slice(POWERS, "tokens since the n-gram that a recall target completes was last seen"),
    "context": Slice(EXACT, "bytes of context of an n-gram model"),
    "lag": Slice(POWERS, "tokens between a position and the earlier one that it depends on"),
}
