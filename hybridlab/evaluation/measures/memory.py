"""Effective memory: how far back the loss of a position comes from, through each mixer, by
gradient.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridlab import validate
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.gradients import GradientShares, gradient_shares
from hybridlab.evaluation.passes.intervals import means
from hybridlab.evaluation.passes.mixer_refs import MixerRef, mixers_by_group
from hybridlab.records.measurement import Measurement
from hybridlab.stack.readout import Readout
from hybridlab.tasks.base import Task
from hybridlab.tasks.slices import POWERS_OF_TWO, Slice

LAG = Slice("lag", "tokens between a position and the earlier one that it depends on", POWERS_OF_TWO)


@dataclass(frozen=True, kw_only=True)
class GradientMeasure(Measure):
    """What follows from the shares of the loss's gradient by lag, at `positions` of a `share` of
    the sequences.

    `hybridlab.evaluation.passes.gradients.GradientShares` defines the shares. They are averaged
    over a sample of the positions that something is predicted from, and over the mixers of a group:
    by layer group, kind of mixer, part and layer. Not taken for a task with pairs of documents,
    whose loss is of both while each is looked at alone.
    """

    share: float = 1 / 16
    positions: int = 1

    def __post_init__(self) -> None:
        validate.share(share=self.share)
        validate.whole(positions=self.positions)

    def applies_to(self, task: Task) -> bool:
        """Return whether a prediction is made from one document."""
        return task.readout != Readout.PAIR_OF_MEANS

    def summarise(
        self, shares: GradientShares, mixers: Sequence[MixerRef], about: dict[str, Any]
    ) -> Iterator[Measurement]:
        """Yield the measurements of one group of mixers, which is described by `about`."""
        raise NotImplementedError

    @classmethod
    def measure_together(cls, measures: Sequence["GradientMeasure"], context: Context) -> Iterator[Measurement]:
        """Take the gradients once for each share and number of positions."""
        settings = dict.fromkeys((measure.share, measure.positions) for measure in measures)
        taken = {each: gradient_shares(context, *each, LAG) for each in settings}
        for measure in measures:
            shares = taken[measure.share, measure.positions]
            for (grouping, group), mixers in mixers_by_group(context.stack.plan).items():
                tokens = max(round(shares.by_lag[mixer].sum()) for mixer in mixers)
                about = {"grouping": grouping, "group": group, "split": context.split, "tokens": tokens}
                yield from measure.summarise(shares, mixers, about)


class MemoryTokens(GradientMeasure):
    """The mean lag, weighted by the shares."""

    name = "memory_tokens"
    unit = "tokens"
    definition = "mean lag, weighted by the influence"
    title = "Memory\n(tokens)"

    def summarise(
        self, shares: GradientShares, mixers: Sequence[MixerRef], about: dict[str, Any]
    ) -> Iterator[Measurement]:
        """Yield the mean lag; nothing for a group that mixes nothing."""
        positions = shares.total(mixers).sum(1, keepdims=True)  # the shares of a position add up to 1
        (lag,) = means(np.stack([shares.distances[mixer] for mixer in mixers]).sum(0), positions)
        if lag is not None:
            yield self.measured(lag, **about)


class Influence(GradientMeasure):
    """The share of the gradient by lag."""

    name = "influence"
    unit = "1"
    definition = "share of the norm of d loss[t] / d input[t-k], through a mixer of the layer group alone, at a lag k"
    source = "effective memory by gradient, hybridlab"
    title = "Influence"
    slices = (LAG,)

    def summarise(
        self, shares: GradientShares, mixers: Sequence[MixerRef], about: dict[str, Any]
    ) -> Iterator[Measurement]:
        """Yield the share of each bucket of lags; nothing for single layers, whose curves would
        make most of a record.
        """
        sums = shares.total(mixers)
        if about["grouping"] == "layer" or not sums.any():
            return
        found = means(sums, np.broadcast_to(sums.sum(1, keepdims=True), sums.shape))
        for bucket, share in zip(shares.lags.names, found, strict=True):
            assert share is not None
            yield self.measured(share, slice=LAG.name, bucket=bucket, **about)
