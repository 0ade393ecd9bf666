"""Effective memory: how far back the loss of a token comes from, through each mixer, by gradient.

The same for attention, recurrences, state spaces and convolutions, so that they compare.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hybridlab.evaluation.passes.buckets import Buckets
from hybridlab.evaluation.passes.capture_io import watching
from hybridlab.evaluation.passes.eval_mode import evaluating
from hybridlab.evaluation.passes.from_interval import measured
from hybridlab.evaluation.passes.mixer_refs import Member, groups, members
from hybridlab.evaluation.passes.samples import Sample, check_share, samples
from hybridlab.evaluation.passes.scores import means
from hybridlab.mixers.base import check_counts
from hybridlab.records.measurement import Measurement
from hybridlab.records.slices import SLICES
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import IGNORED, Batch


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Share of the loss's gradient by lag, and the mean lag, from some positions of a share of the rows.

    y_t = mixer(x)_t, and u_t = d loss[t] / d y_t through the rest of the stack. The influence of lag k on position t is the
    norm of d(u_t · y_t) / d x_{t-k}, u_t held fixed, over the sum of these norms for all k: what of its loss position t owes
    to x_{t-k} by way of this mixer alone. It is averaged over a sample of the positions that something is predicted from,
    and over the mixers of a group. What lies ahead counts by its distance. Where nothing comes through a mixer it is left out.
    By layer group, kind of mixer, part and layer; by lag but for single layers. Not measured for a pair of documents: the loss
    is of both, and each is looked at alone.

    The cost, in plain evaluations: a forward and up to two backward passes over what comes before a position, about 2.5
    times `share` times `positions`.
    """

    share: float = 1 / 16
    positions: int = 1

    def __post_init__(self) -> None:
        check_share(self.share)
        check_counts(positions=self.positions)

    def measure(
        self, stack: Stack, task: Task, batches: Sequence[Batch], device: torch.device, split: str
    ) -> list[Measurement]:
        """Return the rows of the record; none for a group that mixes nothing."""
        if task.pair:
            return []
        drawn = samples(stack, batches, self.share, self.positions, device)
        longest = max((sample.tokens.shape[1] for sample in drawn), default=1)
        lags = Buckets(SLICES["lag"], [np.arange(longest)])
        units = 1 + max((sample.unit for sample in drawn), default=0)
        by_lag = {member: np.zeros((units, len(lags))) for member in members(stack.plan)}
        distances = {member: np.zeros((units, 1)) for member in by_lag}
        with evaluating(stack):
            for sample in drawn:
                for member, lag, share in _shares(stack, sample, list(by_lag)):
                    by_lag[member][sample.unit] += np.bincount(lags.of(lag), share, len(lags))
                    distances[member][sample.unit] += lag @ share
        rows = []
        for (grouping, group), mixers in groups(stack.plan).items():
            sums = np.stack([by_lag[mixer] for mixer in mixers]).sum(0)
            positions = sums.sum(1, keepdims=True)  # the shares of a position add up to 1
            looked_from = max(round(by_lag[mixer].sum()) for mixer in mixers)
            where = {"grouping": grouping, "group": group, "split": split, "tokens": looked_from}
            (lag,) = means(np.stack([distances[mixer] for mixer in mixers]).sum(0), positions)
            if lag is None:
                continue
            rows.append(measured("memory_tokens", lag, **where))
            if grouping != "layer":
                shares = means(sums, np.broadcast_to(positions, sums.shape))
                for bucket, share in zip(lags.names, shares, strict=True):
                    assert share is not None
                    rows.append(measured("influence", share, slice="lag", bucket=bucket, **where))
        return rows


def _shares(
    stack: Stack, sample: Sample, mixers: Sequence[Member]
) -> Iterator[tuple[Member, Float[np.ndarray, " t"], Float[np.ndarray, " t"]]]:
    """Yield, for each position and each mixer that its loss comes through, lags and the shares of the gradient's norm there."""
    for at in sample.at.tolist():
        read = sample.tokens[:, : at + 1] if stack.plan.causal else sample.tokens  # nothing else can have any influence
        with watching(stack, mixers) as seen, torch.enable_grad():
            loss = _loss(stack, read, sample.targets, at)
        outputs = torch.autograd.grad(loss, [seen[mixer][1] for mixer in mixers], retain_graph=True)
        lags = (at - torch.arange(read.shape[1])).abs().double().numpy()
        for mixer, output in zip(mixers, outputs, strict=True):
            x, y = seen[mixer]
            (gradient,) = torch.autograd.grad(y[0, at], x, output[0, at], retain_graph=True, materialize_grads=True)
            norms = gradient[0].double().norm(dim=-1)
            if (total := norms.sum()) > 0:
                yield mixer, lags, (norms / total).cpu().numpy()


def _loss(stack: Stack, tokens: Int[Tensor, "1 t"], targets: Tensor, at: int) -> Float[Tensor, ""]:
    """Return the loss of one position, or of the row where targets are told from the whole of it."""
    x = stack.pooled(stack.run(stack.embedding(tokens)))
    if stack.reading.by_position:
        x, targets = x[:, at : at + 1], targets[:, at : at + 1]
    scored = targets != IGNORED
    return stack.nll(x[scored], targets[scored]).sum()
