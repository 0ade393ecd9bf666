"""The contract that every measure keeps."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.intervals import Interval, means
from hybridlab.evaluation.passes.requests import Request
from hybridlab.evaluation.passes.sums import TargetSums
from hybridlab.evaluation.passes.targets import score
from hybridlab.records.description import Direction, MeasureDescription
from hybridlab.records.measurement import BOOTSTRAP, Measurement
from hybridlab.stack.plan import Plan
from hybridlab.tasks.base import Task
from hybridlab.tasks.slices import Slice


class Measure:
    """One measure: what it is called, what it means, and how it is taken.

    The settings of a measure are the keywords of its constructor; the object holds nothing else, so
    that it can be taken of any number of stacks. A measure belongs to a kind (`TargetMeasure`,
    `SampledMeasure`, `GradientMeasure`, ...), whose `measure_together` takes all measures of the
    kind in one pass over the data.
    """

    name: ClassVar[str]  # lower case, digits and `_`: its name in the record, in W&B and in sweeps
    unit: ClassVar[str]  # `1` for a pure number
    definition: ClassVar[str]  # one sentence, without its first capital
    source: ClassVar[str] = "hybridlab"  # the paper, or how it is obtained
    better: ClassVar[Direction] = ""  # lower | higher: whether tables rank stacks by it
    title: ClassVar[str] = ""  # the heading of its column; by default its name
    compared: ClassVar[str] = ""  # the measure that tests the difference of two stacks, if not this one
    slices: ClassVar[tuple[Slice, ...]] = ()  # those that no task declares

    @classmethod
    def describe(cls) -> MeasureDescription:
        """Return what the record keeps of the measure."""
        title = cls.title or cls.name.replace("_", " ").capitalize()
        return MeasureDescription(cls.unit, cls.definition, cls.source, cls.better, title, cls.compared)

    def applies_to(self, task: Task) -> bool:
        """Return whether the measure means anything for a task; one that does not is left out."""
        return True

    @classmethod
    def measure_together(cls, measures: Sequence[Any], context: Context) -> Iterator[Measurement]:
        """Take all measures of this kind in one pass."""
        raise NotImplementedError

    @classmethod
    def measured(cls, found: Interval, **about: Any) -> Measurement:
        """Return the measurement of a value with its interval; `about` are further fields of
        `Measurement`.
        """
        return Measurement(
            measure=cls.name,
            value=found.value,
            unit=cls.unit,
            low=found.low,
            high=found.high,
            interval="" if found.low is None else BOOTSTRAP,
            n=found.units,
            **about,
        )


class TargetMeasure(Measure):
    """A mean over scored targets, of what is read under interventions: whole and by slice.

    A request is a signed sum of readings; its value is the mean over the targets. Interventions are
    run on a share of the sequences that the budget pays for, with the intact stack beside them on
    the same sequences.
    """

    def requests(self, plan: Plan, groupings: Sequence[str], length: int) -> Iterable[Request]:
        """Return what is asked about a stack; `groupings` name groups of its layers, `length` is
        the longest sequence.
        """
        raise NotImplementedError

    def ratio(
        self, total: Float[np.ndarray, "u c"], tokens: Float[np.ndarray, "u c"], bytes: Float[np.ndarray, "u c"]
    ) -> tuple[Float[np.ndarray, "u c"], Float[np.ndarray, "u c"]]:
        """Return what is summed over units, and what that is divided by; both by unit and
        bucket."""
        return total, tokens

    def scale(self, mean: float) -> float:
        """Return the value for a mean: a monotonically rising function."""
        return mean

    def summarise(self, requests: Sequence[Request], sums: Sequence[TargetSums], split: str) -> Iterator[Measurement]:
        """Yield the measurements that answer the requests, given the sums that belong to each."""
        for request, found in zip(requests, sums, strict=True):
            yield from self.answer(request, found, split)

    def answer(self, request: Request, sums: TargetSums, split: str) -> Iterator[Measurement]:
        """Yield the value of a request, whole and in each bucket that holds any target."""
        about = {**request._asdict(), "split": split}
        del about["terms"], about["sliced"]
        for name, buckets in sums.breakdown.buckets.items():
            if name and not request.sliced:
                continue
            tokens = sums.tokens.by(name)
            ratio = self.ratio(sums.total(request.terms, name), tokens, sums.bytes.by(name))
            for bucket, found, count in zip(buckets.names, means(*ratio), tokens.sum(0), strict=True):
                if found is not None:
                    found = found.changed(self.scale)
                    yield self.measured(found, slice=name, bucket=bucket, tokens=int(count), **about)

    @classmethod
    def measure_together(cls, measures: Sequence["TargetMeasure"], context: Context) -> Iterator[Measurement]:
        """Score the targets once for all measures."""
        asked = [list(measure.requests(context.stack.plan, context.groupings, context.length)) for measure in measures]
        scored = score(context, [request for requests in asked for request in requests])
        for measure, requests in zip(measures, asked, strict=True):
            yield from measure.summarise(requests, [scored.of(request) for request in requests], context.split)
