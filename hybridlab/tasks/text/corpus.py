"""From documents to the splits of a corpus: without duplicates, divided by content, tokenised once, mapped from disk."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.base import SPLITS
from hybridlab.tasks.text.lengths import distribution
from hybridlab.tasks.text.near_duplicates import THRESHOLD, band_keys, near_duplicates
from hybridlab.tasks.text.split import Split
from hybridlab.tasks.text.store import stored
from hybridlab.tasks.text.tokeniser import FILE, Bytes, Subwords, Tokeniser, identity, make_tokeniser, named

VERSION = 1  # of what is stored: another one is built anew
NEAR_DUPLICATES = ("drop", "refuse", "keep")
_FACTS = "facts.json"


class Source(Protocol):
    """Where documents come from."""

    @property
    def digest(self) -> str:
        """A hash of everything that decides the documents."""
        ...

    def documents(self) -> Iterator[bytes]:
        """Yield the UTF-8 bytes of each document; a ConfigError says which cannot be read."""
        ...


class Corpus(NamedTuple):
    """A corpus that is ready for use, and what is known of it."""

    splits: dict[str, Split]
    tokeniser: Tokeniser
    facts: dict[str, Any]


class Division(NamedTuple):
    """How a corpus is divided: what share of its documents each held-out split has, and what becomes of near duplicates.

    A training document that is nearly one of validation or test, or a validation document that is nearly one of test, is
    dropped from its split, refused, or kept; it is counted whatever becomes of it.
    """

    validation_share: float = 0.1
    test_share: float = 0.1
    near_duplicates: str = "drop"

    def check(self) -> None:
        """Refuse what makes no sense."""
        for key in ("validation_share", "test_share"):
            share = getattr(self, key)
            if type(share) is not float or not 0 < share < 1:
                raise ConfigError(f"{key}={share}: must be a number between 0 and 1")
        if self.validation_share + self.test_share >= 1:
            shares = f"test_share={self.test_share}: with validation_share={self.validation_share}"
            raise ConfigError(f"{shares} leaves nothing to train on")
        if self.near_duplicates not in NEAR_DUPLICATES:
            wrong = f"near_duplicates={self.near_duplicates}"
            raise ConfigError(f"{wrong}: no such choice; {near_miss(self.near_duplicates, NEAR_DUPLICATES)}")


def open_corpus(source: Source, tokeniser: str | Mapping[str, int], division: Division) -> Corpus:
    """Open the stored form of a corpus; build it first if it is not there (see `store`)."""
    division.check()
    settings = [VERSION, source.digest, identity(tokeniser), *division]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
    folder = stored(key, lambda unfinished: _build(unfinished, source, tokeniser, division))
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    made = Bytes()
    if tokeniser != "bytes":
        made = Subwords((folder / FILE).read_text(encoding="utf-8"), named(tokeniser))
    return Corpus({name: _opened(folder, name, made) for name in SPLITS}, made, facts)


def _opened(folder: Path, name: str, tokeniser: Tokeniser) -> Split:
    tokens = np.memmap(folder / f"{name}.tokens", dtype=_narrowest(tokeniser), mode="r")
    offsets = np.fromfile(folder / f"{name}.offsets", dtype="<i8")
    return Split(tokens, offsets, tokeniser)


def _narrowest(tokeniser: Tokeniser) -> str:
    return "<u2" if tokeniser.begin < 1 << 16 else "<u4"


def _build(folder: Path, source: Source, setting: str | Mapping[str, int], division: Division) -> None:
    texts = _Texts(folder / "texts", source)
    splits = divide(texts.digests, division)
    near = _near_duplicates(texts, splits)
    if division.near_duplicates == "refuse" and any(map(len, near.values())):
        counts = " and ".join(f"{len(found)} {name}" for name, found in near.items())
        raise ConfigError(f"near_duplicates=refuse: {counts} documents are nearly ones of a later split")
    if division.near_duplicates == "drop":
        splits |= {name: np.setdiff1d(splits[name], near[name], assume_unique=True) for name in near}
        for name, documents in splits.items():
            if not len(documents):
                raise ConfigError(f"near_duplicates=drop: leaves no {name} documents; keep keeps them")
    tokeniser = make_tokeniser(setting, map(texts.__getitem__, splits["training"]))
    if isinstance(tokeniser, Subwords):
        (folder / FILE).write_text(tokeniser.specification, encoding="utf-8")
    tokens = {name: _write(folder, name, map(texts.__getitem__, splits[name]), tokeniser) for name in SPLITS}
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
    }
    (folder / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
    texts.file.unlink()


class _Texts:
    """The distinct documents of a source, none empty, one after another in a file; indexed by their order of coming."""

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
        return self._bytes[self.offsets[index] : self.offsets[index + 1]].tobytes()


def divide(digests: list[bytes], division: Division) -> dict[str, np.ndarray]:
    """Divide documents, at least three, by the order of their digests: test first, then validation.

    The order depends on nothing but the texts, so neither file names nor seeds move a document to another split.
    """
    total = len(digests)
    num_test = min(max(round(division.test_share * total), 1), total - 2)
    num_validation = min(max(round(division.validation_share * total), 1), total - num_test - 1)
    ordered = np.array(sorted(range(total), key=digests.__getitem__))
    test, validation, training = np.split(ordered, [num_test, num_test + num_validation])
    return {"training": training, "validation": validation, "test": test}


def _near_duplicates(texts: _Texts, splits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Find what is in an earlier split and nearly in a later one: what is evaluated on stays whole."""
    held_out = np.concatenate([splits["validation"], splits["test"]])
    return {
        "training": near_duplicates(texts.__getitem__, texts.keys, splits["training"], held_out),
        "validation": near_duplicates(texts.__getitem__, texts.keys, splits["validation"], splits["test"]),
    }


def _write(folder: Path, name: str, texts: Iterator[bytes], tokeniser: Tokeniser) -> np.ndarray:
    """Write the tokens and the offsets of a split; return the length of each document."""
    lengths = []
    with (folder / f"{name}.tokens").open("wb") as file:
        for text in texts:
            tokens = tokeniser.tokens(text)
            lengths.append(len(tokens))
            for part in (np.array([tokeniser.begin]), tokens):
                file.write(part.astype(_narrowest(tokeniser)).tobytes())
    offsets = np.cumsum([0, *(1 + length for length in lengths)], dtype="<i8")
    (folder / f"{name}.offsets").write_bytes(offsets.tobytes())
    return np.array(lengths)


def _digest_of(folder: Path) -> str:
    """Return the SHA-256 of those of the splits' tokens."""
    digest = hashlib.sha256()
    for name in SPLITS:
        with (folder / f"{name}.tokens").open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
