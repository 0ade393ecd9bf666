"""From sums to the rows of the record."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from hybridlab.evaluation.passes.from_interval import measured
from hybridlab.evaluation.passes.probes import INTACT, Probe
from hybridlab.evaluation.passes.scores import WHOLE, Scores, means
from hybridlab.records.measurement import Measurement

Ratio = tuple[np.ndarray, np.ndarray]  # what is summed up and what that is divided by, both [units, buckets]


def intact_rows(scores: Scores, measures: Sequence[str], split: str) -> Iterator[Measurement]:
    """Yield the NLL of the intact stack and what else its task asks for, whole and by slice."""
    for measure in dict.fromkeys(("nll", *measures)):
        ratio, change = partial(OF_THE_INTACT[measure], scores), _perplexity if measure == "perplexity" else float
        yield from _rows(scores, ratio, scores.breakdown.buckets, change, measure=measure, split=split)


def probe_rows(scores: Scores, probe: Probe, split: str) -> Iterator[Measurement]:
    """Yield the value of a probe: whole, and by slice if it is about a declared layer group or cheap to keep."""
    where = probe._asdict()
    del where["terms"]

    def ratio(name: str) -> Ratio:
        added = [sign * scores.nll[run].by(name) for sign, run in probe.terms]
        return np.sum(added, axis=0), scores.tokens.by(name)

    slices = scores.breakdown.buckets if _is_sliced(probe) else (WHOLE,)
    yield from _rows(scores, ratio, slices, float, split=split, **where)


def _is_sliced(probe: Probe) -> bool:
    """Leave out what would make most of a record: what few ask for, of each single layer and of each block."""
    return probe.grouping != "layer" and (probe.measure != "reach" or probe.grouping == "group")


def _rows(
    scores: Scores,
    ratio: Callable[[str], Ratio],
    slices: Iterable[str],
    change: Callable[[float], float],
    **where: Any,
) -> Iterator[Measurement]:
    """Yield the mean of a ratio, changed by a monotone function, in each bucket of some slices that holds any of it."""
    for name in slices:
        buckets, tokens = scores.breakdown.buckets[name], scores.tokens.by(name).sum(0)
        for bucket, found, count in zip(buckets.names, means(*ratio(name)), tokens, strict=True):
            if found is not None:
                yield measured(found=found.changed(change), **where, slice=name, bucket=bucket, tokens=int(count))


def _nll(scores: Scores, name: str) -> Ratio:
    return scores.nll[INTACT].by(name), scores.tokens.by(name)


def _perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def _bits_per_byte(scores: Scores, name: str) -> Ratio:
    return scores.nll[INTACT].by(name) / math.log(2), scores.bytes.by(name)


def _accuracy(scores: Scores, name: str) -> Ratio:
    return scores.correct.by(name), scores.tokens.by(name)


def _example_accuracy(scores: Scores, name: str) -> Ratio:
    tokens = scores.tokens.by(name)
    return scores.correct.by(name) / np.maximum(tokens, 1), np.minimum(tokens, 1)


OF_THE_INTACT = {
    "nll": _nll,
    "perplexity": _nll,
    "bits_per_byte": _bits_per_byte,
    "accuracy": _accuracy,
    "example_accuracy": _example_accuracy,
}
