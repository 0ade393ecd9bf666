"""The kind of measure that looks at single positions of sampled documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hybridlab import validate
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.sampled import Collector, collect
from hybridlab.evaluation.passes.samples import draw_samples, num_units
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack


@dataclass(frozen=True, kw_only=True)
class SampledMeasure(Measure):
    """What is summed up over the documents of a `share` of the sequences, run one at a time by the
    intact stack.

    Measures that are summarised from equal collectors share them; those with the same share, share
    the documents' passes.
    """

    share: float = 1 / 16

    def __post_init__(self) -> None:
        validate.share(share=self.share)

    def collector(self) -> tuple[Any, ...]:
        """Return the class of the collector, which is built from stack and number of units, and
        further arguments of it.
        """
        raise NotImplementedError

    def summarise(self, collector: Any, stack: Stack, split: str) -> Iterator[Measurement]:
        """Yield the measurements."""
        raise NotImplementedError

    @classmethod
    def measure_together(cls, measures: Sequence["SampledMeasure"], context: Context) -> Iterator[Measurement]:
        """Run the sampled documents once for each share."""
        collectors: dict[float, dict[tuple[Any, ...], Collector]] = {}
        for share in dict.fromkeys(measure.share for measure in measures):
            samples = draw_samples(context, share)
            asked = dict.fromkeys(measure.collector() for measure in measures if measure.share == share)
            built = {key: key[0](context.stack, num_units(samples), *key[1:]) for key in asked}
            collect(context, samples, list(built.values()))
            collectors[share] = built
        for measure in measures:
            yield from measure.summarise(collectors[measure.share][measure.collector()], context.stack, context.split)
