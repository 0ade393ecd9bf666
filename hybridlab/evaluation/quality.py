"""Quality of a trained stack on held-out documents, whole and broken down by layer group."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridlab.evaluation.scores import Interval, Scores, bucket_name, mean
from hybridlab.records.measurement import Measurement
from hybridlab.stack.interventions import Part, silenced
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch


class Probe(NamedTuple):
    """What was done to the stack when a token was scored."""

    measure: str  # nll | lens | knockout
    grouping: str  # stack | group | mixer | part
    group: str
    part: str  # "" | mixer | channel


INTACT = Probe("nll", "stack", "", "")


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How quality is measured: on which split, in what windows, and whether broken down by layer group.

    `window` and `stride` are in tokens: a token is scored once, with at least `window - stride` tokens before it (fewer only
    at a document's start). `limit` is how much of each document is read, from its start; null reads all of it.
    """

    split: str
    window: int
    stride: int
    limit: int | None
    batch: int
    by_group: bool

    def __post_init__(self) -> None:
        if self.split not in ("test", "validation"):
            raise ValueError(f"split={self.split}: `test` or `validation` is needed")
        for name in ("window", "stride", "limit", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: at least 1 is needed")
        if self.stride > self.window:
            raise ValueError(f"stride={self.stride}: at most the window, {self.window}; else tokens would go unscored")

    def batches(self, task: Any, split: str | None = None) -> Iterator[Batch]:
        """Return the task's batches to score, over this split or another."""
        return task.evaluation_batches(
            split or self.split, window=self.window, stride=self.stride, limit=self.limit, batch=self.batch
        )

    def score(self, stack: Stack, task: Any, device: torch.device) -> dict[Probe, Scores]:
        """Score every token, intact and under every probe, in one pass over the data."""
        batches = list(self.batches(task))
        documents = 1 + max(int(batch.slices["document"].max()) for batch in batches)
        longest = 1 + max(int(batch.slices["position"].max()) for batch in batches)
        scores: dict[Probe, Scores] = {}
        was_training = stack.training
        stack.eval()
        with torch.inference_mode():
            for batch in batches:
                scored = batch.targets != IGNORED
                document = batch.slices["document"][scored].numpy()
                position = batch.slices["position"][scored].numpy()
                for probe, nll in _nll_by_probe(stack, batch, device, self.by_group):
                    sums = scores.setdefault(probe, Scores.empty(documents, longest))
                    sums.add(nll[scored].numpy(), document, position)
        stack.train(was_training)
        return scores

    def measure(self, stack: Stack, task: Any, device: torch.device) -> list[Measurement]:
        """Return the rows of the record: NLL, bits per byte and perplexity, lens and knockout, all and by position."""
        scores = self.score(stack, task, device)
        intact = scores[INTACT]
        rows: list[Measurement] = []
        for probe, sums in scores.items():
            for bucket in (None, *range(sums.nll.shape[1])):
                found = mean(sums, bucket, minus=intact if probe.measure == "knockout" else None)
                if found is not None:
                    rows += _rows(probe, found, bucket, self.split, task.unit)
        return rows

    def stated(self, rows: list[Measurement]) -> dict[str, Any]:
        """Return what a reader must know to compare the numbers: split, window, stride, limit, tokens and documents."""
        whole = next(row for row in rows if row.measure == "nll" and not row.bucket)
        stated = {name: getattr(self, name) for name in ("split", "window", "stride", "limit")}
        return {**stated, "tokens": whole.tokens, "documents": whole.n}


def _nll_by_probe(stack: Stack, batch: Batch, device: torch.device, by_group: bool) -> Iterator[tuple[Probe, Tensor]]:
    """Yield the NLL [b, t] of each target for the intact stack and under every probe.

    A knockout starts from the intact residual stream in front of the first layer it touches: nothing before that changed.
    """
    inputs, targets = batch.inputs.to(device), batch.targets.to(device)

    def nll(residual: Tensor) -> Tensor:
        logits = stack.read(residual).float()
        return F.cross_entropy(logits.mT, targets, ignore_index=IGNORED, reduction="none").cpu()

    residuals = [stack.embedding(inputs)]  # residuals[i] stands in front of layer i
    for layer in stack.layers:
        residuals.append(layer(residuals[-1]))
    yield INTACT, nll(residuals[-1])
    if not by_group:
        return
    silent: dict[tuple[tuple[int, ...], Part], Tensor] = {}  # a group and a kind of mixer may be the same layers
    for (grouping, group), layers in stack.plan.groupings().items():
        if grouping == "group":
            yield Probe("lens", grouping, group, ""), nll(residuals[layers[-1] + 1])
        parts: tuple[Part, ...] = ("mixer", "channel") if stack.plan.channel is not None else ("mixer",)
        for part in parts:
            if (layers, part) not in silent:
                with silenced(stack, layers, part):
                    silent[layers, part] = nll(stack.run(residuals[layers[0]], first=layers[0]))
            yield Probe("knockout", grouping, group, part), silent[layers, part]
    for name, (layers, only) in stack.plan.part_groupings().items():
        with silenced(stack, layers, "mixer", only):
            yield Probe("knockout", "part", name, "mixer"), nll(stack.run(residuals[layers[0]], first=layers[0]))


def _rows(probe: Probe, found: Interval, bucket: int | None, split: str, unit: str) -> list[Measurement]:
    """Return one interval as rows of the record; the intact NLL also as bits per byte and perplexity."""

    def row(measure: str, change: Any, row_unit: str) -> Measurement:
        ends = [None if end is None else change(end) for end in (found.low, found.high)]
        return Measurement(
            measure=measure,
            value=change(found.value),
            unit=row_unit,
            split=split,
            grouping=probe.grouping,
            group=probe.group,
            part=probe.part,
            slice="" if bucket is None else "position",
            bucket="" if bucket is None else bucket_name(bucket),
            low=ends[0],
            high=ends[1],
            interval="" if found.low is None else "bootstrap over documents",
            n=found.documents,
            tokens=found.tokens,
        )

    rows = [row(probe.measure, float, "nats/token")]
    if probe == INTACT:
        rows.append(row("perplexity", _perplexity, "1"))
        if unit == "byte":
            rows.append(row("bits_per_byte", lambda nats: nats / math.log(2), "bits/byte"))
    return rows


def _perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf
