"""Quality of a trained stack on held-out data: whole, broken down by layer group, and by facts about the targets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from hybridlab.errors import near_miss
from hybridlab.evaluation.probes import INTACT, probed
from hybridlab.evaluation.readout import moved
from hybridlab.evaluation.rows import intact_rows, probe_rows
from hybridlab.evaluation.scores import Breakdown, Scores
from hybridlab.records.measurement import Measurement
from hybridlab.records.slices import SLICES, UNITS
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How quality is measured: on which split, in what windows, and whether broken down by layer group.

    `window` and `stride` are in tokens: a token is scored once, with at least `window - stride` tokens before it (fewer only
    at a document's start). `limit` is how much of each document is read, from its start; null reads all of it. A task whose
    examples are rows of their own has no windows, and `limit` is the number of examples. `slices` are what measures are
    broken down by; null takes all that the task tells, but not a bucket per document.
    """

    split: str
    window: int
    stride: int
    limit: int | None
    batch: int
    by_group: bool
    slices: list | None = None

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation"):
            raise ValueError(f"split={self.split}: `test` or `validation` is needed")
        for name in ("window", "stride", "limit", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: at least 1 is needed")
        if self.stride > self.window:
            raise ValueError(f"stride={self.stride}: at most the window, {self.window}; else tokens would go unscored")
        for name in self.slices or ():
            if name not in SLICES:
                raise ValueError(f"slices={self.slices}: no such slice as {name}; {near_miss(name, SLICES)}")

    def batches(self, task: Task, split: str | None = None) -> Iterator[Batch]:
        """Return the task's batches to score, over this split or another."""
        return task.evaluation_batches(
            split or self.split, window=self.window, stride=self.stride, limit=self.limit, batch=self.batch
        )

    def score(self, stack: Stack, task: Task, device: torch.device) -> Scores:
        """Score every target, intact and under every probe, in one pass over the data."""
        batches = list(self.batches(task))
        scores = Scores(Breakdown(batches, self._slices(task)), task.bytes_of_token)
        was_training = stack.training
        stack.eval()
        with torch.inference_mode():
            for batch in batches:
                places = scores.count(batch)
                for probe, read in probed(stack, moved(batch, device), self.by_group):
                    scores.add(probe, read.nll, places)
                    if probe == INTACT:
                        scores.correct.add(read.correct, places)
        stack.train(was_training)
        return scores

    def measure(self, stack: Stack, task: Task, device: torch.device) -> list[Measurement]:
        """Return the rows of the record: the task's measures of the intact stack, lens and knockout, whole and by slice."""
        scores = self.score(stack, task, device)
        return [*intact_rows(scores, task.measures, self.split), *probe_rows(scores, self.split)]

    def stated(self, rows: list[Measurement]) -> dict[str, Any]:
        """Return what a reader must know to compare the numbers: split, window, stride, limit, tokens and documents."""
        whole = next(row for row in rows if row.measure == "nll" and not row.bucket)
        stated = {name: getattr(self, name) for name in ("split", "window", "stride", "limit")}
        return {**stated, "tokens": whole.tokens, "documents": whole.n}

    def _slices(self, task: Task) -> list[str]:
        """Return the slices to break down by, of those that the task tells."""
        if self.slices is None:
            return [name for name in task.slices if SLICES[name].buckets != UNITS]
        return [name for name in self.slices if name in task.slices]
