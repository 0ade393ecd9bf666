"""What attention reads: how far away, how spread out, and how much on the first token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab import validate
from hybridlab.evaluation.measures.sampled import SampledMeasure
from hybridlab.evaluation.passes.intervals import means
from hybridlab.evaluation.passes.mixer_refs import MixerRef, mixer_refs, mixers_by_group
from hybridlab.evaluation.passes.sampled import Collector, SampleOutputs
from hybridlab.mixers.base import Attends
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack


@dataclass(frozen=True, kw_only=True)
class AttentionMeasure(SampledMeasure):
    """A mean of attention weights over heads, over some `positions` of each document, and over the
    mixers of a group.

    Positions are drawn from those that something is predicted from. Of the mixers, those count that
    say how they attend (`hybridlab.mixers.base.Attends`); of a parallel one, its parts that do. By
    layer group, kind of mixer, part and layer.

    The cost, in plain evaluations: `share`, and the scores of `positions` queries per sequence in
    each layer that attends.
    """

    positions: int = 32
    column: ClassVar[int]  # of what `AttentionSums` sums up

    def __post_init__(self) -> None:
        super().__post_init__()
        validate.whole(positions=self.positions)

    def collector(self) -> tuple[type["AttentionSums"], int]:
        """Ask for the attention weights of the mixers."""
        return AttentionSums, self.positions

    def summarise(self, collector: "AttentionSums", stack: Stack, split: str) -> Iterator[Measurement]:
        """Yield a mean for each group in which something attends."""
        for (grouping, group), mixers in mixers_by_group(stack.plan).items():
            found = means(*collector.of(mixers))[self.column]
            if found is not None:
                tokens = int(collector.positions.sum())
                yield self.measured(found, grouping=grouping, group=group, split=split, tokens=tokens)


class AttentionDistance(AttentionMeasure):
    """The mean distance between a position and the tokens that it attends to."""

    name = "attention_distance"
    unit = "tokens"
    definition = "mean distance between a position and the tokens that it attends to, weighted by attention"
    title = "Attention\ndistance\n(tokens)"
    column = 0


class AttentionEntropy(AttentionMeasure):
    """The mean entropy of the attention of a head and position."""

    name = "attention_entropy"
    unit = "nats"
    definition = "mean entropy of the attention of a head and position"
    source = "arXiv:1906.04341"
    title = "Attention\nentropy\n(nats)"
    column = 1


class AttentionFirst(AttentionMeasure):
    """The mean attention on the first token."""

    name = "attention_first"
    unit = "1"
    definition = "mean attention on the first token"
    source = "attention sink, arXiv:2309.17453"
    title = "Attention on\nfirst token"
    column = 2


class AttentionSums(Collector):
    """Sums over positions of distance, entropy and attention on the first token, by mixer and
    unit."""

    def __init__(self, stack: Stack, units: int, positions: int) -> None:
        self._most = positions
        self._attending = [mixer for mixer in mixer_refs(stack.plan) if isinstance(mixer.of(stack), Attends)]
        self._sums = {mixer: np.zeros((units, 3)) for mixer in self._attending}
        self.positions = np.zeros((units, 1))

    def captures(self) -> Sequence[MixerRef]:
        """Return the mixers that attend."""
        return self._attending

    def add(self, outputs: SampleOutputs) -> None:
        """Take in some positions of a document."""
        at = outputs.sample.some_positions(self._most)
        self.positions[outputs.sample.unit] += len(at)
        distance = (at[:, None] - torch.arange(outputs.sample.tokens.shape[1], device=at.device)).abs()
        for mixer in self._attending:
            weights = mixer.of(outputs.stack).attention(outputs.captured[mixer][0], at)[0]
            found = _of_weights(weights, distance)
            self._sums[mixer][outputs.sample.unit] += found.double().sum(0).cpu().numpy()

    def of(self, mixers: Sequence[MixerRef]) -> tuple[Float[np.ndarray, "u 3"], Float[np.ndarray, "u 3"]]:
        """Return the sums of some mixers, and the number of positions that they are over."""
        own = [self._sums[each] for each in self._attending if any(mixer.covers(each) for mixer in mixers)]
        totals = sum(own, np.zeros((len(self.positions), 3)))
        return totals, np.broadcast_to(len(own) * self.positions, totals.shape)


def _of_weights(weights: Float[Tensor, "h n t"], distance: Tensor) -> Float[Tensor, "n 3"]:
    """Return distance, entropy and attention on the first token of each position, averaged over
    heads.
    """
    found = (weights * distance).sum(-1), torch.special.entr(weights).sum(-1), weights[..., 0]
    return torch.stack([each.mean(0) for each in found], dim=-1)
