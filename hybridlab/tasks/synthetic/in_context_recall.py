"""In-context recall: pairs of a key and its value, where a key that recurs has the same value."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.occurrences import previous_occurrence
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.sized import Sized

TRAIN_ON = ("every", "recalled")


@dataclass(kw_only=True, eq=False)
class InContextRecall(Sized):
    """`length` / 2 pairs with random keys; each sequence assigns every key a random value.

    The last pair's key is one of the earlier ones, all equally likely. The highest
    `noise_vocabulary` tokens of the vocabulary are noise; the lower half of the others are keys,
    the rest values. With probability `noise_share` a pair is replaced by two tokens of noise,
    except the last pair and one at random. Held-out targets are the values of keys that were shown
    before, at the key. In training every next token is a target, as in MAD's code, or only those
    values (`train_on: recalled`).
    """

    predicts = "the value of each key shown before, at the key; in training every next token, unless set otherwise"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2403.17844, MAD"

    vocabulary: int
    noise_vocabulary: int = 0
    noise_share: float = 0.0
    train_on: str = "every"
    examples: int | None = 12800
    held_out: int = 1280

    def __post_init__(self) -> None:
        validate.whole(least=0, noise_vocabulary=self.noise_vocabulary)
        validate.number(least=0, most=1, below=True, noise_share=self.noise_share)
        if self.noise_share and not self.noise_vocabulary:
            raise ConfigError(f"noise_share={self.noise_share}: needs a noise_vocabulary of at least 1")
        validate.whole(least=self.noise_vocabulary + 2, vocabulary=self.vocabulary)
        validate.whole(least=4, length=self.length)
        validate.even(why="keys and values come in pairs", length=self.length)
        validate.choice(TRAIN_ON, train_on=self.train_on)
        super().__post_init__()

    def draw(self, rng: CounterRng, segment: Segment, split: str) -> Examples:
        """Draw examples; the distance is from the last occurrence of a key to the key."""
        num_pairs, example = segment.length // 2, np.arange(len(rng))
        meaningful = self.vocabulary - self.noise_vocabulary
        num_keys = meaningful // 2
        keys = rng.integers(num_keys, num_pairs)
        values = num_keys + rng.integers(meaningful - num_keys, num_keys)
        noisy = rng.uniform(num_pairs) < self.noise_share
        noisy[example, rng.integers(num_pairs - 1, 1)[:, 0]] = noisy[:, -1] = False

        symbols = np.where(noisy, num_keys + np.arange(num_pairs), keys)  # each noisy pair is a symbol of its own
        new = (previous_occurrence(symbols) < 0) & ~noisy
        new[:, -1] = False
        keys[:, -1] = keys[example, np.where(new, rng.uniform(num_pairs), 1).argmin(axis=1)]
        symbols[:, -1] = keys[:, -1]
        seen = previous_occurrence(symbols)
        recalled = seen >= 0

        values = np.take_along_axis(values, keys, axis=1)
        pairs = np.stack([keys, values], axis=2)
        if self.noise_share:
            noise = meaningful + rng.integers(self.noise_vocabulary, segment.length)
            pairs = np.where(noisy[..., None], noise.reshape(pairs.shape), pairs)
        inputs = pairs.reshape(len(rng), -1)
        targets, distance = np.full_like(inputs, IGNORED), np.full_like(inputs, -1)
        targets[:, ::2] = np.where(recalled, values, IGNORED)
        distance[:, ::2] = np.where(recalled, 2 * (np.arange(num_pairs) - seen), -1)
        if split == "training" and self.train_on == "every":
            targets[:, :-1] = inputs[:, 1:]
        return Examples(inputs, targets, {"distance": distance})

    def answers(self, examples: Examples) -> Int64[np.ndarray, "n a"]:
        """Return the values of the keys shown before, which an example shows."""
        return examples.targets
