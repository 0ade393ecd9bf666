"""Multi-query associative recall: key-value pairs, then some of the keys again, each asking for its value."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.settings import require_even, require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION, Slice
from hybridlab.tasks.synthetic.base import Examples, Synthetic
from hybridlab.tasks.synthetic.draws import Draws

PAIRS = Slice("pairs", "key-value pairs in the example", prominent=True)


class Segment(NamedTuple):
    """So many examples with one length and one number of pairs."""

    length: int
    pairs: int
    examples: int


class MQAR(Synthetic):
    """Zoology's task, by the rule of its code (HazyResearch/zoology, multiquery_ar.py).

    A row starts with `pairs` keys, each followed by its value, all of it `passes` times; keys are different tokens of
    1 .. vocabulary/2 - 1, values of vocabulary/2 .. vocabulary - 1. Behind them lie (length - 2 pairs passes)/2 slots of
    two tokens. Each key is shown once more, at the start of a slot, and its value is the target at that very token. Slot i =
    1, 2, ... is drawn with a chance in proportion to power_a i^(power_a - 1), without replacement: the first are the
    likeliest, unless power_a is 1. What is not a query is 0 or, with `random_non_queries`, any token, so that it may look
    like a pair of the row.

    A task is one segment (`length`, `pairs`, `examples`, `held_out`) or a mix: lists `training` and `evaluation` of
    {length, pairs, examples}, with `length` that of the longest row to train on.
    """

    predicts = "the value, at each key that is shown again"
    slices = (DOCUMENT, POSITION, LENGTH, PAIRS, DISTANCE)
    source = "arXiv:2312.04927, Zoology"

    def __init__(
        self,
        *,
        seed: int,
        vocabulary: int,
        length: int,
        batch: int,
        pairs: int | None = None,
        examples: int | None = None,
        held_out: int | None = None,
        training: Sequence[Any] | None = None,
        evaluation: Sequence[Any] | None = None,
        power_a: float = 0.01,
        random_non_queries: bool = True,
        passes: int = 1,
        order: str = "shuffled",
    ):
        require_whole("passes", passes, least=1)
        if power_a <= 0:
            raise ConfigError(f"power_a={power_a}: must be above 0")
        if (training is None) != (evaluation is None):
            raise ConfigError("training: goes with evaluation; a mix needs both, one segment neither")
        if training is None or evaluation is None:
            pairs = require_whole("pairs", pairs, least=1)
            num_trained = batch if examples is None else require_whole("examples", examples, least=1)
            num_held_out = require_whole("held_out", held_out, least=1)
            segments = [Segment(length, pairs, num_trained)], [Segment(length, pairs, num_held_out)]
        else:
            for key, value in (("pairs", pairs), ("examples", examples), ("held_out", held_out)):
                if value is not None:
                    raise ConfigError(f"{key}={value}: of a mix, each segment says its own")
            segments = _segments("training", training), _segments("evaluation", evaluation)
            if length != (longest := max(segment.length for segment in segments[0])):
                raise ConfigError(f"length={length}: must be that of the longest row to train on, {longest}")
        for segment in (*segments[0], *segments[1]):
            _check(segment, vocabulary, passes)
        self.vocabulary = vocabulary
        self.power_a = power_a
        self.random_non_queries = random_non_queries
        self.passes = passes
        fresh = training is None and examples is None
        super().__init__(seed=seed, batch=batch, training=segments[0], evaluation=segments[1], fresh=fresh, order=order)

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; a target's distance is that from its key's last place among the pairs to the query."""
        length, pairs = segment.length, segment.pairs
        shown, half = 2 * pairs * self.passes, self.vocabulary // 2
        keys = 1 + draws.distinct(half - 1, pairs)
        values = half + draws.distinct(self.vocabulary - half, pairs)
        slots = np.arange(1, (length - shown) // 2 + 1)
        queries = shown + 2 * draws.ranked(self.power_a * slots ** (self.power_a - 1.0), pairs)

        inputs = np.zeros((len(draws), length), dtype=np.int64)
        if self.random_non_queries:
            inputs = draws.integers(self.vocabulary, length)
        inputs[:, :shown] = np.tile(np.stack([keys, values], axis=2).reshape(len(draws), -1), self.passes)
        np.put_along_axis(inputs, queries, keys, axis=1)
        targets = np.full_like(inputs, IGNORED)
        np.put_along_axis(targets, queries, values, axis=1)
        distance = np.full_like(inputs, -1)
        np.put_along_axis(distance, queries, queries - (shown - 2 * pairs + 2 * np.arange(pairs)), axis=1)
        return Examples(inputs, targets, {"pairs": np.full_like(inputs, pairs), "distance": distance})


def _segments(key: str, listed: Sequence[Any]) -> list[Segment]:
    """Read a list of {length, pairs, examples}."""
    if not listed:
        raise ConfigError(f"{key}=[]: at least one segment is needed")
    for entry in listed:
        for name in set(entry) ^ set(Segment._fields):
            what = f"missing in {dict(entry)}" if name in Segment._fields else near_miss(name, Segment._fields)
            raise ConfigError(f"{key}={name}: {what}")
        for name in Segment._fields:
            require_whole(f"{key}.{name}", entry[name], least=1)
    return [Segment(**entry) for entry in listed]


def _check(segment: Segment, vocabulary: int, passes: int) -> None:
    length, pairs, _ = segment
    require_whole("length", length, least=4)
    require_even("length", length, "keys and values come in twos")
    if (most := length // (2 * passes + 2)) < pairs:
        raise ConfigError(f"pairs={pairs}: at most {most} fit in length={length}, shown {passes} times and asked for")
    require_whole("vocabulary", vocabulary, least=length + 1)
    if pairs > vocabulary // 2 - 1:
        raise ConfigError(f"pairs={pairs}: vocabulary={vocabulary} has {vocabulary // 2 - 1} keys")
