"""Effective memory: how far back the loss of a token comes from, through each mixer, by gradient.

The same for attention, recurrences, state spaces and convolutions, so that they compare.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.evaluation.buckets import Buckets
from hybridlab.evaluation.evaluating import evaluating
from hybridlab.evaluation.measured import measured
from hybridlab.evaluation.members import Member, groups, members
from hybridlab.evaluation.samples import Sample, check_share, samples
from hybridlab.evaluation.scores import means
from hybridlab.evaluation.watching import watching
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

    The cost, in plain evaluations: a forward and up to two backward passes, about 5 times `share` times `positions`.
    """

    share: float = 1 / 32
    positions: int = 4

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
) -> Iterator[tuple[Member, Float[np.ndarray, " n*t"], Float[np.ndarray, " n*t"]]]:
    """Yield, for each mixer, lags and the shares of the gradient's norm that lie there, those of all positions together."""
    at, rows = sample.at, torch.arange(len(sample.at), device=sample.at.device)
    with watching(stack, mixers) as seen, torch.enable_grad():
        loss = _loss(stack, sample)
    outputs = torch.autograd.grad(loss, [seen[mixer][1] for mixer in mixers], retain_graph=True)
    lags = (at[:, None] - torch.arange(sample.tokens.shape[1], device=at.device)).abs()
    for mixer, output in zip(mixers, outputs, strict=True):
        x, y = seen[mixer]
        (gradient,) = torch.autograd.grad(y[rows, at], x, output[rows, at], retain_graph=True, materialize_grads=True)
        norms = gradient.double().norm(dim=-1)
        total = norms.sum(1, keepdim=True)
        reached = total[:, 0] > 0
        share = norms[reached] / total[reached]
        yield mixer, lags[reached].flatten().cpu().numpy(), share.flatten().cpu().numpy()


def _loss(stack: Stack, sample: Sample) -> Float[Tensor, ""]:
    """Return the sum of the losses at the sampled positions, each in a copy of the row, so that their gradients stay apart."""
    x = stack.run(stack.embedding(sample.tokens.expand(len(sample.at), -1)))
    targets = sample.targets.expand(len(x), *sample.targets.shape[1:])
    if stack.reading.by_position:
        targets = targets.where(torch.arange(x.shape[1], device=x.device) == sample.at[:, None], IGNORED)
    scored = targets != IGNORED
    return stack.nll(stack.pooled(x)[scored], targets[scored]).sum()
