"""In-context recall: pairs of a key and its value, where a key that comes again has the same value."""

import numpy as np

from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.settings import require_choice, require_even, require_share, require_whole
from hybridlab.tasks.slices import DISTANCE, DOCUMENT, LENGTH, POSITION
from hybridlab.tasks.synthetic.base import Examples, Segment
from hybridlab.tasks.synthetic.draws import Draws
from hybridlab.tasks.synthetic.sized import Sized
from hybridlab.tasks.text.previous import previous_occurrence

TRAIN_ON = ("every", "recalled")


class InContextRecall(Sized):
    """`length` / 2 pairs whose keys are drawn at random; each row gives every key a value of its own, at random too.

    The last pair's key is one of those shown before, each as likely. Of the vocabulary, the highest `noise_vocabulary`
    tokens are noise; the lower half of the others are keys, the rest values. A pair is two tokens of noise instead with a
    chance of `noise_share`, but for one at random and the last. Scored is the value of every key that was shown before, at
    the key. In training every next token is a target, as in MAD's code, or the same as is scored (`train_on: recalled`).
    """

    predicts = "the value of each key shown before, at the key; in training every next token, unless told otherwise"
    slices = (DOCUMENT, POSITION, LENGTH, DISTANCE)
    source = "arXiv:2403.17844, MAD"

    def __init__(
        self,
        *,
        seed: int,
        vocabulary: int,
        length: int,
        batch: int,
        noise_vocabulary: int = 0,
        noise_share: float = 0.0,
        train_on: str = "every",
        examples: int | None = 12800,
        held_out: int = 1280,
    ):
        require_whole("noise_vocabulary", noise_vocabulary, least=0)
        require_share("noise_share", noise_share)
        if noise_share and not noise_vocabulary:
            raise ConfigError(f"noise_share={noise_share}: needs a noise_vocabulary of at least 1")
        require_whole("vocabulary", vocabulary, least=noise_vocabulary + 2)
        require_whole("length", length, least=4)
        require_even("length", length, "keys and values come in twos")
        require_choice("train_on", train_on, TRAIN_ON)
        self.vocabulary = vocabulary
        self.noise_vocabulary = noise_vocabulary
        self.noise_share = noise_share
        self.train_on = train_on
        super().__init__(seed=seed, length=length, batch=batch, examples=examples, held_out=held_out)

    def draw(self, draws: Draws, segment: Segment, split: str) -> Examples:
        """Draw rows; distances are from a key's last place to the key."""
        num_pairs, rows = segment.length // 2, np.arange(len(draws))
        meaningful = self.vocabulary - self.noise_vocabulary
        num_keys = meaningful // 2
        keys = draws.integers(num_keys, num_pairs)
        values = num_keys + draws.integers(meaningful - num_keys, num_keys)
        noisy = draws.uniform(num_pairs) < self.noise_share
        noisy[rows, draws.integers(num_pairs - 1, 1)[:, 0]] = noisy[:, -1] = False

        symbols = np.where(noisy, num_keys + np.arange(num_pairs), keys)  # no noise is like any other
        new = (previous_occurrence(symbols) < 0) & ~noisy
        new[:, -1] = False
        keys[:, -1] = keys[rows, np.where(new, draws.uniform(num_pairs), 1).argmin(axis=1)]
        symbols[:, -1] = keys[:, -1]
        seen = previous_occurrence(symbols)
        recalled = seen >= 0

        values = np.take_along_axis(values, keys, axis=1)
        pairs = np.stack([keys, values], axis=2)
        if self.noise_share:
            noise = meaningful + draws.integers(self.noise_vocabulary, segment.length)
            pairs = np.where(noisy[..., None], noise.reshape(pairs.shape), pairs)
        inputs = pairs.reshape(len(draws), -1)
        targets, distance = np.full_like(inputs, IGNORED), np.full_like(inputs, -1)
        targets[:, ::2] = np.where(recalled, values, IGNORED)
        distance[:, ::2] = np.where(recalled, 2 * (np.arange(num_pairs) - seen), -1)
        if split == "training" and self.train_on == "every":
            targets[:, :-1] = inputs[:, 1:]
        return Examples(inputs, targets, {"distance": distance})
