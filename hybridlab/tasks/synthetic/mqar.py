"""Multi-query associative recall: key-value pairs, then some keys again, each asking for its
value."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION, Slice
from hybridlab.tasks.synthetic.base import Examples, Synthetic

PAIRS = Slice("pairs", "key-value pairs in the example", prominent=True)


class Segment(NamedTuple):
    """A number of examples with one length and one number of pairs."""

    length: int
    pairs: int
    examples: int


class MQAR(Synthetic):
    """Zoology's task, by the rule of its code (HazyResearch/zoology, multiquery_ar.py).

    A sequence starts with `pairs` keys, each followed by its value; this prefix is shown `passes`
    times. Keys are different tokens of 1 .. vocabulary/2 - 1, values of vocabulary/2 .. vocabulary
    - 1. Then come (length - 2 pairs passes)/2 slots of two tokens. Each key is shown once more, at
    the start of a slot, and its value is the target at that very token. Slot i = 1, 2, ... is
    sampled without replacement in proportion to power_a i^(power_a - 1), so unless power_a is 1
    early slots are likelier. Tokens that are no queries are 0 or, with `random_non_queries`,
    random, so that they may look like a pair of the sequence.

    A task is one segment (`length`, `pairs`, `examples`, `held_out`) or a mix: lists `training` and
    `evaluation` of {length, pairs, examples}, where `length` is that of the longest training
    sequence.
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
        validate.whole(passes=passes)
        validate.positive(power_a=power_a)
        if (training is None) != (evaluation is None):
            raise ConfigError("training: goes with evaluation; a mix needs both, one segment neither")
        if training is None or evaluation is None:
            validate.whole(pairs=pairs, held_out=held_out)
            validate.whole(null="fresh examples at every step", examples=examples)
            assert pairs is not None
            assert held_out is not None
            segments = [Segment(length, pairs, examples or batch)], [Segment(length, pairs, held_out)]
        else:
            for key, value in (("pairs", pairs), ("examples", examples), ("held_out", held_out)):
                if value is not None:
                    raise ConfigError(f"{key}={value}: in a mix, each segment sets its own")
            segments = _segments("training", training), _segments("evaluation", evaluation)
            if length != (longest := max(segment.length for segment in segments[0])):
                raise ConfigError(f"length={length}: must be that of the longest training sequence, {longest}")
        for segment in (*segments[0], *segments[1]):
            _check(segment, vocabulary, passes)
        self.vocabulary = vocabulary
        self.power_a = power_a
        self.random_non_queries = random_non_queries
        self.passes = passes
        fresh = training is None and examples is None
        super().__init__(seed=seed, batch=batch, training=segments[0], evaluation=segments[1], fresh=fresh, order=order)

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; the distance is from a key's last occurrence among the pairs to its
        query."""
        length, pairs = segment.length, segment.pairs
        shown, half = 2 * pairs * self.passes, self.vocabulary // 2
        keys = 1 + rng.distinct(half - 1, pairs)
        values = half + rng.distinct(self.vocabulary - half, pairs)
        slots = np.arange(1, (length - shown) // 2 + 1)
        queries = shown + 2 * rng.weighted(self.power_a * slots ** (self.power_a - 1.0), pairs)

        inputs = np.zeros((len(rng), length), dtype=np.int64)
        if self.random_non_queries:
            inputs = rng.integers(self.vocabulary, length)
        inputs[:, :shown] = np.tile(np.stack([keys, values], axis=2).reshape(len(rng), -1), self.passes)
        np.put_along_axis(inputs, queries, keys, axis=1)
        targets = np.full_like(inputs, IGNORED)
        np.put_along_axis(targets, queries, values, axis=1)
        distance = np.full_like(inputs, -1)
        np.put_along_axis(distance, queries, queries - (shown - 2 * pairs + 2 * np.arange(pairs)), axis=1)
        return Examples(inputs, targets, {"pairs": np.full_like(inputs, pairs), "distance": distance})

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the values of the keys that are shown again, which an example shows."""
        return examples.targets


def _segments(key: str, listed: Sequence[Any]) -> list[Segment]:
    """Read a list of {length, pairs, examples}."""
    if not listed:
        raise ConfigError(f"{key}=[]: at least one segment is needed")
    for entry in listed:
        for name in set(entry) ^ set(Segment._fields):
            what = f"missing in {dict(entry)}" if name in Segment._fields else near_miss(name, Segment._fields)
            raise ConfigError(f"{key}={name}: {what}")
        validate.whole(**{f"{key}.{name}": entry[name] for name in Segment._fields})
    return [Segment(**entry) for entry in listed]


def _check(segment: Segment, vocabulary: int, passes: int) -> None:
    length, pairs, _ = segment
    validate.whole(least=4, length=length)
    validate.even(why="keys and values come in pairs", length=length)
    if (most := length // (2 * passes + 2)) < pairs:
        raise ConfigError(f"pairs={pairs}: at most {most} fit in length={length}, shown {passes} times and asked for")
    validate.whole(least=length + 1, vocabulary=vocabulary)
    if pairs > vocabulary // 2 - 1:
        raise ConfigError(f"pairs={pairs}: vocabulary={vocabulary} has {vocabulary // 2 - 1} keys")
