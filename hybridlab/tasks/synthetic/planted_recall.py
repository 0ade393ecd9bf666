"""Language modelling on real text in which random strings come twice, so that what can be recalled is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridlab.errors import ConfigError
from hybridlab.tasks.settings import require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION, RECALL, RECALL_DISTANCE, RELATIVE_POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.sized import Sized
from hybridlab.tasks.text.haystack import VOCABULARY, Haystack


class PlantedRecall(Sized):
    """Rows of text, `plants` strings of `size` random bytes written over it, and each again at a distance.

    The distance is one of `distances`, multiples of `size`, each as likely as far as it leaves room; null means all of
    size, 2 size, 4 size, ... that fit in the row. The first `cue` bytes of a string's second coming cannot be known; they
    say which string it is, and determine the rest of it: those bytes are `recall`. A string of random bytes is not of the
    text, but for a chance of one in 256^cue per place. First comings and cues are in no bucket of `recall`; the text is.
    """

    predicts = "every byte, from those before it; the first, from a mark that stands in front of it"
    measures = ("nll", "accuracy", "bits_per_byte")
    slices = (DOCUMENT, POSITION, RELATIVE_POSITION, LENGTH, RECALL, RECALL_DISTANCE, DISTANCE)
    source = "hybridlab, after the recall hits of arXiv:2312.04927"
    unit = "byte"
    vocabulary = VOCABULARY

    def __init__(
        self,
        *,
        seed: int,
        length: int,
        batch: int,
        path: str | None = None,
        plants: int = 4,
        size: int = 8,
        cue: int = 3,
        distances: Sequence[int] | None = None,
        multiples: Sequence[int] = (1,),
        examples: int | None = None,
        held_out: int = 200,
        validation_share: float = 0.1,
        test_share: float = 0.1,
    ):
        for key, value in (("length", length), ("plants", plants), ("cue", cue)):
            require_whole(key, value, least=1)
        require_whole("size", size, least=cue + 1)
        if length < 4 * plants * size:
            raise ConfigError(f"plants={plants}: twice size={size} each must be at most half of length={length}")
        for distance in distances or ():
            if type(distance) is not int or distance < size or distance % size or distance > length - size:
                wrong = f"distances={list(distances or ())}"
                raise ConfigError(f"{wrong}: must be multiples of size={size}, at most {length - size}; not {distance}")
        self.plants = plants
        self.size = size
        self.cue = cue
        self.distances = None if distances is None else tuple(distances)
        self.haystack = Haystack(path, validation_share, test_share)
        self.bytes_of_token = self.haystack.bytes_of_token
        super().__init__(
            seed=seed, length=length, batch=batch, examples=examples, held_out=held_out, multiples=multiples
        )

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; both distances are from a byte of a string to the same byte when it comes again."""
        size, rows = self.size, np.arange(len(draws))[:, None]
        num_slots = segment.length // size
        apart = np.array(self.distances or [size << power for power in range((num_slots - 1).bit_length())]) // size
        text = self.haystack.cut(draws, split, segment.length)
        recall, distance, certain = np.zeros_like(text), np.full_like(text, -1), np.full_like(text, -1)
        # Slots of `size` bytes, so that no string is written over another; those past the end are never free.
        free = np.zeros((len(draws), num_slots + int(apart.max())), dtype=bool)
        free[:, :num_slots] = True
        for _ in range(self.plants):
            gap = apart[draws.integers(len(apart), 1)]
            again = np.arange(num_slots) + gap
            fits = free[:, :num_slots] & np.take_along_axis(free, again, axis=1)
            slot = np.where(fits, draws.uniform(num_slots), -1).argmax(axis=1)[:, None]
            string = draws.integers(256, size)
            kept = np.take_along_axis(fits, slot, axis=1)[:, 0]
            free[rows[kept], slot[kept]] = free[rows[kept], (slot + gap)[kept]] = False
            first = (slot * size + np.arange(size))[kept]
            second = first + (gap * size)[kept]
            text[rows[kept], first] = text[rows[kept], second] = string[kept]
            recall[rows[kept], first] = recall[rows[kept], second] = -1
            distance[rows[kept], second] = (gap * size)[kept]
            recall[rows[kept], second[:, self.cue :]] = 1
            certain[rows[kept], second[:, self.cue :]] = (gap * size)[kept]
        return Examples(
            self.haystack.inputs(text), text, {"recall": recall, "recall_distance": certain, "distance": distance}
        )

    def describe(self) -> dict[str, Any]:
        """Facts about the examples and the corpus for the record."""
        return {**super().describe(), "corpus": self.haystack.facts}
