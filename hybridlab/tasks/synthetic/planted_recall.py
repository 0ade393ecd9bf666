"""Language modelling on real text with random strings that occur twice, so that the recallable
tokens are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION, RECALL, RECALL_DISTANCE, RELATIVE_POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.in_text import InText


@dataclass(kw_only=True, eq=False)
class PlantedRecall(InText):
    """Text overwritten with `plants` strings of `size` random bytes, each of them twice, some
    distance apart.

    The distance is one of `distances`, multiples of `size`, drawn uniformly from those that still
    fit; null means size, 2 size, 4 size, ... up to the length of the sequence. The first `cue`
    bytes of the second occurrence cannot be known; they identify the string and so determine its
    other bytes, which are `recall`. By chance a string occurs in the text with a probability of
    256^-cue per position. First occurrences and cues are in no bucket of `recall`; the text is.
    """

    predicts = "every byte, from those before it; the first, from a begin token"
    measures = ("nll", "accuracy", "bits_per_byte")
    slices = (DOCUMENT, POSITION, RELATIVE_POSITION, LENGTH, RECALL, RECALL_DISTANCE, DISTANCE)
    source = "hybridlab, after the recall hits of arXiv:2312.04927"

    plants: int = 4
    size: int = 8
    cue: int = 3
    distances: Sequence[int] | None = None
    held_out: int = 200

    def __post_init__(self) -> None:
        length, size = self.length, self.size
        validate.whole(length=length, plants=self.plants, cue=self.cue)
        validate.whole(least=self.cue + 1, size=size)
        if length < 4 * self.plants * size:
            limit = f"two strings of size={size} per plant must fill at most half of length={length}"
            raise ConfigError(f"plants={self.plants}: {limit}")
        for distance in self.distances or ():
            if type(distance) is not int or distance < size or distance % size or distance > length - size:
                allowed = f"must be multiples of size={size}, at most {length - size}; not {distance}"
                raise ConfigError(f"distances={list(self.distances or ())}: {allowed}")
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; both distances are from a byte of a string to the same byte in its second
        occurrence."""
        size, example = self.size, np.arange(len(rng))[:, None]
        num_slots = segment.length // size
        apart = np.array(self.distances or [size << power for power in range((num_slots - 1).bit_length())]) // size
        text = self.haystack.cut(rng, split, segment.length)
        recall, distance, certain = np.zeros_like(text), np.full_like(text, -1), np.full_like(text, -1)
        # Slots of `size` bytes keep strings from overlapping; those past the end are never free.
        free = np.zeros((len(rng), num_slots + int(apart.max())), dtype=bool)
        free[:, :num_slots] = True
        for _ in range(self.plants):
            gap = apart[rng.integers(len(apart), 1)]
            again = np.arange(num_slots) + gap
            fits = free[:, :num_slots] & np.take_along_axis(free, again, axis=1)
            slot = np.where(fits, rng.uniform(num_slots), -1).argmax(axis=1)[:, None]
            string = rng.integers(256, size)
            kept = np.take_along_axis(fits, slot, axis=1)[:, 0]
            free[example[kept], slot[kept]] = free[example[kept], (slot + gap)[kept]] = False
            first = (slot * size + np.arange(size))[kept]
            second = first + (gap * size)[kept]
            text[example[kept], first] = text[example[kept], second] = string[kept]
            recall[example[kept], first] = recall[example[kept], second] = -1
            distance[example[kept], second] = (gap * size)[kept]
            recall[example[kept], second[:, self.cue :]] = 1
            certain[example[kept], second[:, self.cue :]] = (gap * size)[kept]
        facts = {"recall": recall, "recall_distance": certain, "distance": distance}
        return Examples(self.haystack.inputs(text), text, facts)
