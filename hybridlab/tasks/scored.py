"""The digest of what a task is scored on."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from hybridlab.tasks.batch import IGNORED, Batch


class Scored(NamedTuple):
    """The SHA-256 of inputs, targets and documents, and the number of bytes of text that the
    targets stand for, None without text."""

    sha256: str
    num_bytes: int | None


def scored_of(batches: Iterable[Batch], bytes_of_token: Any) -> Scored:
    """Return the digest of all batches, in their order; `bytes_of_token` is the task's, or None."""
    digest, total = hashlib.sha256(), 0
    for batch in batches:
        for tensor in (batch.inputs, batch.targets, batch.documents):
            if tensor is not None:
                digest.update(repr(tuple(tensor.shape)).encode())
                digest.update(tensor.contiguous().numpy().data)
        if bytes_of_token is not None:
            total += _num_bytes(batch, np.asarray(bytes_of_token))
    return Scored(digest.hexdigest(), None if bytes_of_token is None else total)


def _num_bytes(batch: Batch, bytes_of_token: np.ndarray) -> int:
    """Return the bytes of text that the supervised targets of a batch stand for."""
    supervised = batch.targets != IGNORED
    if batch.num_bytes is not None:
        return int(batch.num_bytes[supervised].sum())
    return int(bytes_of_token[batch.targets[supervised].numpy()].sum())
