"""Real text to hide things in."""

import numpy as np
from jaxtyping import Int64

from hybridlab.tasks.cache import digest_of
from hybridlab.tasks.counter_rng import CounterRng
from hybridlab.tasks.text.corpus import Division, open_corpus
from hybridlab.tasks.text.files import Files
from hybridlab.tasks.text.tokeniser import Bytes

VOCABULARY = len(Bytes.bytes_of_token)


class Haystack:
    """The bytes of the documents of each split of a corpus, one after another (`path` as in
    `Documents`)."""

    def __init__(self, path: str | None, validation_share: float, test_share: float):
        corpus = open_corpus(Files(path), "bytes", Division(validation_share, test_share))
        self.bytes_of_token = corpus.tokeniser.bytes_of_token
        self.facts = corpus.facts
        self.content = digest_of(corpus.facts["sha256"])
        self._text = {name: np.concatenate(list(split.texts(None))) for name, split in corpus.splits.items()}

    def cut(self, rng: CounterRng, split: str, length: int) -> Int64[np.ndarray, "n length"]:
        """Return `length` bytes of the split for each example, from a random start; the end wraps
        around to the start."""
        text = self._text[split]
        return text[(rng.integers(len(text), 1) + np.arange(length)) % len(text)].astype(np.int64)

    def inputs(self, text: Int64[np.ndarray, "n t"]) -> Int64[np.ndarray, "n t"]:
        """Return the input for each target byte: the byte before it, and the begin token for the
        first."""
        return np.concatenate([np.full((len(text), 1), Bytes.begin), text[:, :-1]], axis=1)
