"""The text that is scored: the start of each document, cut by bytes, and its digest."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8


class TextDigest(NamedTuple):
    """The SHA-256 of some documents in their order, of their lengths and their bytes; and the
    number of bytes."""

    sha256: str
    num_bytes: int


def digest_texts(texts: Iterable[UInt8[np.ndarray, " _"]]) -> TextDigest:
    """Return the digest of some documents, whatever their tokens are."""
    digest, total = hashlib.sha256(), 0
    for text in texts:
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(text).data)
        total += len(text)
    return TextDigest(digest.hexdigest(), total)


def end_of_prefix(text: Integer[np.ndarray, " _"], limit: int | None) -> int:
    """Return how many bytes of a document are read: `limit` of them at most, whole characters, but
    never less than one character.

    A tokeniser cannot read a part of a character, so none is scored by any.
    """
    if limit is None or len(text) <= limit:
        return len(text)
    end = limit
    while end and _continues(int(text[end])):
        end -= 1
    if not end:
        end = 1
        while end < len(text) and _continues(int(text[end])):
            end += 1
    return end


def _continues(byte: int) -> bool:
    """Return whether a byte of UTF-8 is not the first of its character."""
    return byte & 0xC0 == 0x80
