"""Text of the Long Range Arena: is a film review positive or negative? It is read byte by byte."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.lra.classification import Example, Stored
from hybridlab.tasks.lra.published_folder import published_folder

LABELS = ("neg", "pos")
_WHAT = "the folder aclImdb of the Large Movie Review Dataset (aclImdb_v1.tar.gz)"


class LRAText(Stored):
    """Predict whether a review is negative (0) or positive (1), from its first `length` bytes.

    `path` is the folder aclImdb; its test split is the test split. The validation split is a share
    of its training split, chosen by a hash of the text (the Long Range Arena validates on the test
    split). Training reviews that occur twice or also in the test split are left out.
    """

    predicts = "whether the review is positive, once a sequence, from its bytes"
    source = "IMDB reviews, Maas et al. 2011, as in the Long Range Arena, arXiv:2011.04006"
    unit = "byte"
    vocabulary = 257  # the bytes and padding
    padding = 256
    classes = 2

    def __init__(
        self, *, seed: int, path: str, length: int = 4096, batch: int = 32, validation_share: float = 0.1
    ) -> None:
        super().__init__(seed=seed, length=length, batch=batch)
        validate.number(least=0, most=1, below=True, validation_share=validation_share)
        folder = published_folder(path, "train/neg", "train/pos", "test/neg", "test/pos", what=_WHAT)
        published, test = list(_reviews(folder / "train")), dict(_reviews(folder / "test"))
        kept = [(text, label) for text, label in dict(published).items() if text not in test]
        kept.sort(key=lambda review: sha256(review[0]).digest())
        num_validation = max(1, round(validation_share * len(kept)))
        if not test or len(kept) <= num_validation:
            raise ConfigError(f"path={path}: too few reviews: {len(kept)} to train on and {len(test)} to test on")
        self.num_dropped = len(published) - len(kept)
        self.splits = {
            "training": _examples(kept[num_validation:]),
            "validation": _examples(kept[:num_validation]),
            "test": _examples(test.items()),
        }

    def describe(self) -> dict[str, Any]:
        """Return the number of examples of each split, and of training reviews that were left
        out."""
        return {**super().describe(), "duplicates_dropped": self.num_dropped}


def _reviews(folder: Path) -> Iterator[tuple[bytes, int]]:
    for label, name in enumerate(LABELS):
        for file in sorted((folder / name).glob("*.txt")):
            yield file.read_bytes(), label


def _examples(reviews: Iterable[tuple[bytes, int]]) -> list[Example]:
    return [Example((np.frombuffer(text, np.uint8),), label) for text, label in reviews]
