"""What in a stack may be redundant: layers that turn the residual stream little, groups that add
the same.
"""

from collections.abc import Iterator

import numpy as np
import torch

from hybridlab.evaluation.measures.sampled import SampledMeasure
from hybridlab.evaluation.passes.cka import LinearCKA
from hybridlab.evaluation.passes.intervals import Interval, means
from hybridlab.evaluation.passes.sampled import Collector, SampleOutputs
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack


class BlockInfluence(SampledMeasure):
    """1 - cos(before, after), of the residual stream before and after the layers (ShortGPT,
    equation 1).

    It is averaged over the positions that something is predicted from, for each layer group and
    each layer.
    """

    name = "block_influence"
    unit = "1"
    definition = "1 - mean cosine of the residual stream before and after the layers"
    source = "arXiv:2403.03853"
    title = "Block\ninfluence"

    def collector(self) -> tuple[type["StreamTurns"]]:
        """Ask for the cosines."""
        return (StreamTurns,)

    def summarise(self, collector: "StreamTurns", stack: Stack, split: str) -> Iterator[Measurement]:
        """Yield a mean for each group and each layer."""
        found = means(collector.turned, collector.positions)
        tokens = int(collector.positions[:, 0].sum())
        for (grouping, group), turned in zip(collector.spans, found, strict=True):
            if turned is not None:
                yield self.measured(turned, grouping=grouping, group=group, split=split, tokens=tokens)


class Similarity(SampledMeasure):
    """The linear CKA between what two layer groups add to the residual stream.

    It is no mean over documents, and has no interval. A group that adds nothing resembles none. The
    cost beyond that of the pass: products of [positions, width] matrices in float64.
    """

    name = "similarity"
    unit = "1"
    definition = "linear CKA between what two layer groups add to the residual stream"
    source = "arXiv:1905.00414"
    title = "Similarity\n(CKA)"

    def collector(self) -> tuple[type["GroupAdditions"]]:
        """Ask for what the groups add."""
        return (GroupAdditions,)

    def summarise(self, collector: "GroupAdditions", stack: Stack, split: str) -> Iterator[Measurement]:
        """Yield the CKA of each pair of declared groups."""
        for pair, value in collector.cka.pairs():
            found = Interval(value, None, None, len(collector.units))
            yield self.measured(found, grouping="pair", group=" & ".join(pair), split=split, tokens=collector.cka.count)


class StreamTurns(Collector):
    """Sums over positions of 1 - cosine across each layer group and each layer, by unit."""

    def __init__(self, stack: Stack, units: int) -> None:
        self.spans = {("group", group): span for group, span in _declared(stack).items()}
        self.spans |= {("layer", str(index)): (index, index + 1) for index in range(len(stack.layers))}
        self.turned = np.zeros((units, len(self.spans)))
        self.positions = np.zeros_like(self.turned)

    def add(self, outputs: SampleOutputs) -> None:
        """Take in a document."""
        stream, sample = outputs.streams_predicted_from(), outputs.sample
        cosines = [torch.cosine_similarity(stream[first], stream[end], dim=-1) for first, end in self.spans.values()]
        self.turned[sample.unit] += (1 - torch.stack(cosines)).sum(1).cpu().numpy()
        self.positions[sample.unit] += len(sample.positions)


class GroupAdditions(Collector):
    """What each declared group adds to the residual stream, as linear CKA needs it."""

    def __init__(self, stack: Stack, units: int) -> None:
        self._spans = _declared(stack)
        self.cka = LinearCKA()
        self.units: set[int] = set()

    def add(self, outputs: SampleOutputs) -> None:
        """Take in a document."""
        stream = outputs.streams_predicted_from()
        self.cka.add({group: stream[end] - stream[first] for group, (first, end) in self._spans.items()})
        self.units.add(outputs.sample.unit)


def _declared(stack: Stack) -> dict[str, tuple[int, int]]:
    """Return where each declared layer group begins and ends."""
    return {
        group: (layers[0], layers[-1] + 1)
        for (grouping, group), layers in stack.plan.groupings().items()
        if grouping == "group"
    }
