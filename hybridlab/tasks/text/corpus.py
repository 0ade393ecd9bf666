"""From documents to the splits of a corpus: deduplicated, divided by content, tokenised once,
mapped from disk."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.base import SPLITS
from hybridlab.tasks.text.lengths import distribution
from hybridlab.tasks.text.near_duplicates import THRESHOLD, band_keys, near_duplicates
from hybridlab.tasks.text.scored_text import digest_texts
from hybridlab.tasks.text.source import Source
from hybridlab.tasks.text.split import Split
from hybridlab.tasks.text.store import stored
from hybridlab.tasks.text.tokeniser import FILE, Bytes, Subwords, Tokeniser, identity, make_tokeniser, named

VERSION = 2  # of the stored format; a corpus of another version is built again
NEAR_DUPLICATES = ("drop", "refuse", "keep")
_FACTS = "facts.json"


class Corpus(NamedTuple):
    """The splits of a corpus, its tokeniser, and facts about it for the record."""

    splits: dict[str, Split]
    tokeniser: Tokeniser
    facts: dict[str, Any]


class Division(NamedTuple):
    """The shares of the held-out splits, and the treatment of near duplicates.

    A training document that nearly duplicates one of validation or test, or a validation document
    that nearly duplicates one of test, is dropped from its split, refused or kept; it is counted in
    each case.
    """

    validation_share: float = 0.1
    test_share: float = 0.1
    near_duplicates: str = "drop"

    def check(self) -> None:
        """Validate the shares and the choice."""
        validate.share(below=True, validation_share=self.validation_share, test_share=self.test_share)
        if self.validation_share + self.test_share >= 1:
            shares = f"test_share={self.test_share}: with validation_share={self.validation_share}"
            raise ConfigError(f"{shares} leaves nothing to train on")
        validate.choice(NEAR_DUPLICATES, near_duplicates=self.near_duplicates)


def open_corpus(source: Source, tokeniser: str | Mapping[str, int], division: Division) -> Corpus:
    """Open the stored form of a corpus; build it first if it is missing (see `store`).

    It is a copy: what happens to the files later does not change it. Files that change while they
    are read are refused.
    """
    division.check()

    def settings() -> list[Any]:
        return [VERSION, source.digest, identity(tokeniser), *division]

    before = settings()

    def build(unfinished: Path) -> None:
        _build(unfinished, source, tokeniser, division)
        if settings() != before:
            raise ConfigError(f"{source}: the files changed while they were read; start again")

    folder = stored(hashlib.sha256(json.dumps(before).encode()).hexdigest()[:32], build)
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    made = Bytes()
    if tokeniser != "bytes":
        made = Subwords((folder / FILE).read_text(encoding="utf-8"), named(tokeniser))
    return Corpus({name: _open_split(folder, name, made) for name in SPLITS}, made, facts)


def _open_split(folder: Path, name: str, tokeniser: Tokeniser) -> Split:
    tokens = np.memmap(folder / f"{name}.tokens", dtype=_narrowest(tokeniser), mode="r")
    offsets = np.fromfile(folder / f"{name}.offsets", dtype="<i8")
    added = np.fromfile(folder / f"{name}.added", dtype=bool)
    return Split(tokens, offsets, tokeniser, added)


def _narrowest(tokeniser: Tokeniser) -> str:
    return "<u2" if tokeniser.begin < 1 << 16 else "<u4"


def _build(folder: Path, source: Source, setting: str | Mapping[str, int], division: Division) -> None:
    texts = _Texts(folder / "texts", source)
    splits = divide(texts.digests, division)
    near = _near_duplicates(texts, splits)
    if division.near_duplicates == "refuse" and any(map(len, near.values())):
        counts = " and ".join(f"{len(found)} {name}" for name, found in near.items())
        raise ConfigError(f"near_duplicates=refuse: {counts} documents nearly duplicate ones of a later split")
    if division.near_duplicates == "drop":
        splits |= {name: np.setdiff1d(splits[name], near[name], assume_unique=True) for name in near}
        for name, documents in splits.items():
            if not len(documents):
                raise ConfigError(f"near_duplicates=drop: leaves no {name} documents; near_duplicates=keep keeps them")
    tokeniser = make_tokeniser(setting, map(texts.__getitem__, splits["training"].tolist()))
    if isinstance(tokeniser, Subwords):
        (folder / FILE).write_text(tokeniser.specification, encoding="utf-8")
    tokens = {name: _write(folder, name, map(texts.__getitem__, splits[name].tolist()), tokeniser) for name in SPLITS}
    sizes = {name: texts.lengths[splits[name]] for name in SPLITS}
    facts = {
        "documents": {name: len(documents) for name, documents in splits.items()},
        "bytes": {name: int(lengths.sum()) for name, lengths in sizes.items()},
        "tokens": {name: int(lengths.sum()) for name, lengths in tokens.items()},
        "lengths_in_bytes": {name: distribution(lengths) for name, lengths in sizes.items()},
        "lengths_in_tokens": {name: distribution(lengths) for name, lengths in tokens.items()},
        "duplicates_dropped": texts.num_duplicates,
        "empty_dropped": texts.num_empty,
        "near_duplicates": {
            "choice": division.near_duplicates,
            "similarity": THRESHOLD,
            **{name: len(found) for name, found in near.items()},
        },
        "tokeniser": {"identity": identity(setting), "vocabulary": len(tokeniser.bytes_of_token)},
        "sha256": _digest_of(folder),
        "text": {name: digest_texts(map(texts.array, splits[name].tolist())).sha256 for name in SPLITS},
    }
    (folder / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    texts.file.unlink()


class _Texts:
    """The distinct documents of a source that are not empty, concatenated in a file; indexed in the
    source's order."""

    def __init__(self, file: Path, source: Source):
        self.file = file
        self.digests: list[bytes] = []
        self.num_duplicates = self.num_empty = 0
        seen, ends, keys = set(), [0], []
        with file.open("wb") as opened:
            for text in source.documents():
                digest = hashlib.sha256(text).digest()
                self.num_empty += not text
                self.num_duplicates += bool(text) and digest in seen
                if text and digest not in seen:
                    seen.add(digest)
                    self.digests.append(digest)
                    ends.append(ends[-1] + opened.write(text))
                    keys.append(band_keys(text))
        if len(keys) < 3:
            held = f"holds {len(keys)} distinct document{'s' * (len(keys) != 1)}; needs at least 3 documents to split"
            raise ConfigError(f"{source}: {held if keys else 'holds no documents'}")
        self.offsets = np.array(ends)
        self.lengths = np.diff(self.offsets)
        self.keys = np.array(keys)
        self._bytes = np.memmap(file, dtype=np.uint8, mode="r")

    def __getitem__(self, index: int) -> bytes:
        return self.array(index).tobytes()

    def array(self, index: int) -> UInt8[np.ndarray, " bytes"]:
        return self._bytes[self.offsets[index] : self.offsets[index + 1]]


def divide(digests: list[bytes], division: Division) -> dict[str, np.ndarray]:
    """Divide three or more documents into splits by the order of their digests: test first, then
    validation.

    The order depends only on the texts, so neither file names nor seeds move a document to another
    split.
    """
    total = len(digests)
    num_test = min(max(round(division.test_share * total), 1), total - 2)
    num_validation = min(max(round(division.validation_share * total), 1), total - num_test - 1)
    ordered = np.array(sorted(range(total), key=digests.__getitem__))
    test, validation, training = np.split(ordered, [num_test, num_test + num_validation])
    return {"training": training, "validation": validation, "test": test}


def _near_duplicates(texts: _Texts, splits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Find the documents of each split that nearly duplicate one of a later split, so that held-out
    splits stay whole."""
    held_out = np.concatenate([splits["validation"], splits["test"]])
    return {
        "training": near_duplicates(texts.__getitem__, texts.keys, splits["training"], held_out),
        "validation": near_duplicates(texts.__getitem__, texts.keys, splits["validation"], splits["test"]),
    }


def _write(folder: Path, name: str, texts: Iterator[bytes], tokeniser: Tokeniser) -> np.ndarray:
    """Write the tokens of a split to disk, the offsets, and which documents got a space in front;
    return the length of each document."""
    lengths, added = [], []
    with (folder / f"{name}.tokens").open("wb") as file:
        for text in texts:
            tokens = tokeniser.tokens(text)
            lengths.append(len(tokens))
            added.append(int(tokeniser.bytes_of_token[tokens].sum()) > len(text))
            for part in (np.array([tokeniser.begin]), tokens):
                file.write(part.astype(_narrowest(tokeniser)).tobytes())
    offsets = np.cumsum([0, *(1 + length for length in lengths)], dtype="<i8")
    (folder / f"{name}.offsets").write_bytes(offsets.tobytes())
    (folder / f"{name}.added").write_bytes(np.array(added, dtype=bool).tobytes())
    return np.array(lengths)


def _digest_of(folder: Path) -> str:
    """Return the SHA-256 of the SHA-256 digests of the splits' tokens."""
    digest = hashlib.sha256()
    for name in SPLITS:
        with (folder / f"{name}.tokens").open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
