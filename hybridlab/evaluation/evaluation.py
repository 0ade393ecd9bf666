"""The evaluation of a trained stack on held-out data: whole, broken down by layer group, and by
slices of the targets.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch

from hybridlab import validate
from hybridlab.errors import ConfigError, near_miss
from hybridlab.evaluation.measured import Measured, attempt, joined, without_non_finite
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.measures.build import build_measure
from hybridlab.evaluation.passes.context import Context
from hybridlab.records.measurement import Measurement
from hybridlab.sources import is_outside, source_digest
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.slices import SAMPLING_UNIT, Slice

SPLITS = ("test", "validation")
GROUPINGS = ("group", "mixer", "layer")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Which split is scored, in what windows, by which measures, and what these may cost.

    `window` and `stride` are in tokens: each token is scored once, with at least `window - stride`
    tokens before it (fewer only at a document's start). `limit` is how many bytes of each document
    are read, from its start, whatever the tokeniser; None reads all of it. A task whose examples
    are sequences of their own has no windows, and `limit` is the number of examples.

    `measures` are objects by `_target_`, by any key (the options of the config group
    `evaluation/measures`); `of_task` are what the task is judged by, and are taken in any case.
    Those of layer groups are taken of the `groupings`: group (as declared), mixer (all of a kind),
    layer (each alone). `slices` names what measures are broken down by; None takes all that the
    task declares, except for a bucket per document.

    `intervention_budget` is what running changed stacks may cost, in plain evaluations of the same
    sequences; beyond it, they run on a sample of the sequences, spread over all documents. None
    runs them on all sequences.
    """

    split: str
    window: int
    stride: int
    limit: int | None
    batch: int
    measures: dict = field(default_factory=dict)
    groupings: list
    intervention_budget: float | None
    slices: list | None = None
    of_task: dict[str, Measure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        validate.choice(SPLITS, split=self.split)
        validate.whole(window=self.window, stride=self.stride, batch=self.batch)
        validate.whole(limit=self.limit, null="no limit")
        if self.stride > self.window:
            raise ConfigError(f"stride={self.stride}: must be at most window={self.window}, or tokens are not scored")
        validate.positive(intervention_budget=self.intervention_budget, null="all sequences")
        if not isinstance(self.groupings, list):
            raise ConfigError(f"groupings={self.groupings}: must be a list, e.g. [group, mixer]")
        for grouping in self.groupings:
            if grouping not in GROUPINGS:
                raise ConfigError(f"groupings={self.groupings}: {near_miss(str(grouping), GROUPINGS)}")
        if self.slices is not None and not isinstance(self.slices, list):
            raise ConfigError(f"slices={self.slices}: must be a list, e.g. [position], or null: all")
        if not isinstance(self.measures, Mapping):
            raise ConfigError(f"measures={self.measures}: must be a mapping from keys to `_target_` and settings")
        _check_names(self.built)

    @cached_property
    def built(self) -> dict[str, Measure]:
        """The measures of the configuration, by their keys."""
        return {str(key): build_measure(node, f"measures.{key}") for key, node in self.measures.items()}

    def measures_of(self, task: Task) -> list[Measure]:
        """Return what is measured of a task: what it is judged by, and those of the configuration
        that apply to it.
        """
        own = [measure for measure in self.built.values() if measure.applies_to(task)]
        named = {measure.name for measure in own}
        return [*(measure for measure in self.of_task.values() if measure.name not in named), *own]

    def slices_of(self, task: Task) -> list[Slice]:
        """Return the slices that measures are broken down by."""
        if self.slices is None:
            return [slice for slice in task.slices if slice.buckets != SAMPLING_UNIT]
        return [slice for name in self.slices for slice in task.slices if slice.name == name]

    def batches(self, task: Task) -> Iterator[Batch]:
        """Return the task's batches to score."""
        return task.evaluation_batches(
            self.split, window=self.window, stride=self.stride, limit=self.limit, batch=self.batch
        )

    def measure(self, stack: Stack, task: Task, device: torch.device) -> Measured:
        """Measure a stack: all measures of a kind in one pass over the data.

        A measure that fails, or yields no finite number, has no value, and the reason instead. What
        the task is ranked by is kept as it is, so that a run that diverged is seen.
        """
        return self.measure_on(list(self.batches(task)), stack, task, device)

    def measure_on(
        self, batches: Sequence[Batch], stack: Stack, task: Task, device: torch.device, *, finite: bool = True
    ) -> Measured:
        """Measure a stack on some batches of the split; without `finite`, keep values that are no
        numbers.
        """
        context = Context(
            stack=stack,
            task=task,
            batches=batches,
            device=device,
            split=self.split,
            slices=self.slices_of(task),
            groupings=self.groupings,
            budget=self.intervention_budget,
            batch=self.batch,
        )
        kinds: dict[Any, list[Measure]] = {}
        for measure in self.measures_of(task):
            kinds.setdefault(type(measure).measure_together.__func__, []).append(measure)
        found = joined(part for some in kinds.values() for part in _take(some, context))
        return without_non_finite(found, kept=("nll", *task.measures[:1])) if finite else found

    def settings(self, task: Task) -> dict[str, Any]:
        """Return what decides which numbers a measure finds.

        Window and stride are None where the task has sequences of its own, which are read whole.
        """
        names = ("split", "window", "stride", "limit", "batch", "groupings", "intervention_budget", "slices")
        unused = {} if task.windowed else {"window": None, "stride": None}
        return {name: getattr(self, name) for name in names} | unused

    def measure_settings(self, task: Task) -> dict[str, dict[str, Any]]:
        """Return the settings of each measure by its name, a user's own with the digest of its
        source.
        """
        return {
            measure.name: vars(measure)
            | ({"_source_": source_digest(type(measure))} if is_outside(type(measure)) else {})
            for measure in self.measures_of(task)
        }

    def only(self, names: Collection[str]) -> "Evaluation":
        """Return this evaluation with some of its measures, by their names."""
        return replace(
            self,
            measures={key: node for key, node in self.measures.items() if self.built[str(key)].name in names},
            of_task={key: measure for key, measure in self.of_task.items() if measure.name in names},
        )

    def summary(self, measurements: Sequence[Measurement], task: Task) -> dict[str, Any]:
        """Return what a reader must know to compare the numbers: how they were measured, what was
        scored (its digest, and how many tokens, documents and bytes of text), and how many tokens
        changed stacks were run on.
        """
        text: dict[str, Any] = {"window": self.window, "stride": self.stride, "limit": self.limit}
        whole = next((found for found in measurements if found.measure == "nll" and not found.bucket), None)
        changed = (found.tokens for found in measurements if found.part and not found.bucket)
        return {
            **self.settings(task),
            "measures": self.measure_settings(task),
            "tokens": whole and whole.tokens,
            "documents": whole and whole.n,
            "scored": task.scored(self.split, **text),
            "bytes": task.scored_bytes(self.split, **text),
            "intervention_tokens": next(changed, None),
        }


def _take(measures: Sequence[Measure], context: Context) -> Iterator[Measured]:
    """Take measures of one kind together; if that fails, each alone, to lose only the one that
    fails.
    """
    kind = type(measures[0])
    together = attempt((measure.name for measure in measures), partial(kind.measure_together, measures, context))
    if not together.missing or len(measures) == 1:
        yield together
        return
    for measure in measures:
        yield attempt([measure.name], partial(kind.measure_together, [measure], context))


def _check_names(measures: Mapping[str, Measure]) -> None:
    """Refuse two measures of one name: their numbers could not be told apart."""
    keys: dict[str, str] = {}
    for key, measure in measures.items():
        if measure.name in keys:
            raise ConfigError(f"measures.{key}: `{measure.name}` is measured by measures.{keys[measure.name]} already")
        keys[measure.name] = key
