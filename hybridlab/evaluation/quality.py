"""Quality of a trained stack on held-out data: whole, broken down by layer group, and by facts about the targets."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hybridlab.build import build
from hybridlab.errors import near_miss
from hybridlab.evaluation.passes.budget import share_of_rows
from hybridlab.evaluation.passes.calibration import calibrate
from hybridlab.evaluation.passes.eval_mode import evaluating
from hybridlab.evaluation.passes.probes import CALIBRATED, CHANGES, GROUPINGS, MEASURES, READS, Run, probes, runs
from hybridlab.evaluation.passes.reach import reach_tokens
from hybridlab.evaluation.passes.rows import intact_rows, probe_rows
from hybridlab.evaluation.passes.sampling import regrouped
from hybridlab.evaluation.passes.scores import Breakdown, Scores
from hybridlab.evaluation.passes.scoring import score_changed, score_intact
from hybridlab.records.measurement import Measurement
from hybridlab.records.slices import SLICES, UNITS
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch

CALIBRATION_TOKENS = 2**17  # at most; and a quarter of those that are evaluated


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How quality is measured: on which split, in what windows, by which probes, and what these may cost.

    `window` and `stride` are in tokens: a token is scored once, with at least `window - stride` tokens before it (fewer only
    at a document's start). `limit` is how much of each document is read, from its start; null reads all of it. A task whose
    examples are rows of their own has no windows, and `limit` is the number of examples. `slices` are what measures are
    broken down by; null takes all that the task tells, but not a bucket per document.

    `probes` are the measures of layer groups, of the groupings in `by`: group (as declared), mixer (all of a kind), layer
    (each alone). `probe_budget` is what they may cost, in plain evaluations of the same rows; what would cost more is run on
    a sample of the rows, spread over all documents. Null runs them on all rows. `also` are further sets of measures by any
    name: a `_target_` with its settings, whose `measure(stack, task, batches, device, split)` returns rows of the record.
    """

    split: str
    window: int
    stride: int
    limit: int | None
    batch: int
    probes: list
    by: list
    probe_budget: float | None
    slices: list | None = None
    also: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation"):
            raise ValueError(f"split={self.split}: `test` or `validation` is needed")
        for name in ("window", "stride", "limit", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: at least 1 is needed")
        if self.stride > self.window:
            raise ValueError(f"stride={self.stride}: at most the window, {self.window}; else tokens would go unscored")
        if self.probe_budget is not None and not self.probe_budget > 0:
            raise ValueError(f"probe_budget={self.probe_budget}: a number above 0 is needed, or null for all rows")
        for name, allowed in (("probes", MEASURES), ("by", GROUPINGS), ("slices", SLICES)):
            _check_names(name, getattr(self, name), allowed)
        for name, node in self.also.items():
            if not isinstance(node, Mapping):
                raise ValueError(f"also.{name}={node}: a `_target_` and its settings are needed")
        self._further()

    def batches(self, task: Task, split: str | None = None) -> Iterator[Batch]:
        """Return the task's batches to score, over this split or another."""
        return task.evaluation_batches(
            split or self.split, window=self.window, stride=self.stride, limit=self.limit, batch=self.batch
        )

    def measure(self, stack: Stack, task: Task, device: torch.device) -> list[Measurement]:
        """Return the rows of the record: the task's measures of the intact stack, then what the probes and `also` find."""
        batches = list(self.batches(task))
        asked = probes(stack.plan, self.probes, self.by, max(batch.inputs.shape[1] for batch in batches))
        whole, few = self.score(stack, task, batches, runs(asked), device)
        found = [*intact_rows(whole, task.measures, self.split)]
        for probe in asked:
            found += probe_rows(whole if probe.measure in READS else few, probe, self.split)
        found += reach_tokens(found)
        for further in self._further():
            found += further.measure(stack, task, batches, device, self.split)
        return found

    def score(
        self, stack: Stack, task: Task, batches: Sequence[Batch], asked: Sequence[Run], device: torch.device
    ) -> tuple[Scores, Scores]:
        """Score all targets by the intact stack and the lenses, and those of a sample of the rows by each changed stack."""
        breakdown = Breakdown(batches, self._slices(task))
        whole, few = (Scores(breakdown, task.bytes_of_token) for _ in range(2))
        lenses = [run for run in asked if run.kind in READS]
        changes = [run for run in asked if run.kind not in READS]
        tokens = sum(batch.inputs.numel() for batch in batches)
        steps = _calibration_steps(asked, tokens, task.tokens_per_step)
        share = share_of_rows(stack, asked, self.probe_budget, steps * task.tokens_per_step / tokens)
        with evaluating(stack), torch.inference_mode():
            tuned = [run.layers[0] for run in lenses if run.kind == "tuned_lens"]
            calibration = calibrate(stack, task, tuned, steps, device)
            for batch in batches:
                score_intact(stack, batch, lenses, calibration, whole, device)
            if changes:
                for batch in regrouped(batches, share, self.batch):
                    score_changed(stack, batch, changes, calibration, few, device)
        return whole, few

    def stated(self, rows: list[Measurement], task: Task) -> dict[str, Any]:
        """Return what a reader must know to compare the numbers: what was scored, how many tokens, how many by the probes.

        Window and stride are null where the task has rows of its own, which are read whole.
        """
        settings = ("split", "window", "stride", "limit", "probes", "by", "probe_budget", "also")
        whole = next(row for row in rows if row.measure == "nll" and not row.bucket)
        probed = (row.tokens for row in rows if row.measure in CHANGES and not row.bucket)
        counts = {"tokens": whole.tokens, "documents": whole.n, "probed_tokens": next(probed, None)}
        unused = {} if task.windowed else {"window": None, "stride": None}
        return {name: getattr(self, name) for name in settings} | unused | counts

    def _further(self) -> list[Any]:
        """Build the further sets of measures."""
        return [build(node, f"evaluation.also.{name}") for name, node in self.also.items()]

    def _slices(self, task: Task) -> list[str]:
        """Return the slices to break down by, of those that the task tells."""
        if self.slices is None:
            return [name for name in task.slices if SLICES[name].buckets != UNITS]
        return [name for name in self.slices if name in task.slices]


def _calibration_steps(asked: Sequence[Run], tokens: int, tokens_per_step: int) -> int:
    """Return how many training batches are run to calibrate the probes."""
    if not any(run.kind in CALIBRATED for run in asked):
        return 0
    return max(1, min(CALIBRATION_TOKENS, tokens // 4) // tokens_per_step)


def _check_names(key: str, names: Any, allowed: Collection[str]) -> None:
    if names is not None and not isinstance(names, list):
        raise ValueError(f"{key}={names}: a list is needed, e.g. [{next(iter(allowed))}]")
    for name in names or ():
        if name not in allowed:
            raise ValueError(f"{key}={names}: no such name as {name}; {near_miss(name, allowed)}")
