"""From sums to the rows of the record."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hybridlab.evaluation.probes import INTACT, Probe
from hybridlab.evaluation.scores import Interval, Scores, means
from hybridlab.records.measurement import BOOTSTRAP, Measurement
from hybridlab.records.measures import MEASURES

Ratio = tuple[np.ndarray, np.ndarray]  # what is summed up and what that is divided by, both [units, buckets]


def intact_rows(scores: Scores, measures: Sequence[str], split: str) -> Iterator[Measurement]:
    """Yield the NLL of the intact stack and what else its task asks for, whole and by slice."""
    for measure in dict.fromkeys(("nll", *measures)):
        yield from _rows(scores, INTACT._replace(measure=measure), split, OF_THE_INTACT[measure])


def probe_rows(scores: Scores, split: str) -> Iterator[Measurement]:
    """Yield the NLL by a lens, or what a change of the stack adds to the NLL of the same targets, whole and by slice."""
    for probe in scores.nll:
        if probe != INTACT:
            yield from _rows(scores, probe, split, _nll(probe) if probe.measure == "lens" else _added(probe))


def _rows(scores: Scores, probe: Probe, split: str, ratio: Callable[[Scores, str], Ratio]) -> Iterator[Measurement]:
    """Yield the mean of a measure in each bucket of each slice that holds any of it."""
    for name, buckets in scores.breakdown.buckets.items():
        tokens = scores.tokens.by(name).sum(0)
        for bucket, found, count in zip(buckets.names, means(*ratio(scores, name)), tokens, strict=True):
            if found is not None:
                yield _row(probe, found, split=split, slice=name, bucket=bucket, tokens=int(count))


def _row(probe: Probe, found: Interval, **where: Any) -> Measurement:
    change = _perplexity if probe.measure == "perplexity" else float
    return Measurement(
        **probe._asdict(),
        **where,
        value=change(found.value),
        unit=MEASURES[probe.measure].unit,
        low=None if found.low is None else change(found.low),
        high=None if found.high is None else change(found.high),
        interval="" if found.low is None else BOOTSTRAP,
        n=found.units,
    )


def _nll(probe: Probe) -> Callable[[Scores, str], Ratio]:
    return lambda scores, name: (scores.nll[probe].by(name), scores.tokens.by(name))


def _added(probe: Probe) -> Callable[[Scores, str], Ratio]:
    return lambda scores, name: (scores.nll[probe].by(name) - scores.nll[INTACT].by(name), scores.tokens.by(name))


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
    "nll": _nll(INTACT),
    "perplexity": _nll(INTACT),
    "bits_per_byte": _bits_per_byte,
    "accuracy": _accuracy,
    "example_accuracy": _example_accuracy,
}
