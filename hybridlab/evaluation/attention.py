"""What attention reads: how far away, how spread out, and how much on the first token."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.evaluation.evaluating import evaluating
from hybridlab.evaluation.measured import measured
from hybridlab.evaluation.members import Member, groups, members
from hybridlab.evaluation.samples import Sample, samples
from hybridlab.evaluation.scores import means
from hybridlab.evaluation.watching import watching
from hybridlab.mixers.base import Attends
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import Batch

ROWS = 32  # of the split
POSITIONS = 32  # of each row
MEASURES = ("attention_distance", "attention_entropy", "attention_first")


def attention(stack: Stack, batches: Sequence[Batch], device: torch.device, *, split: str) -> list[Measurement]:
    """Return distance, entropy and share on the first token of the attention of each group, kind, part and layer.

    Each is a mean over heads, over a sample of the positions where something is predicted, and over those mixers of the
    group that say how they attend (`hybridlab.mixers.base.Attends`); of a parallel one, over its parts that do.

    The cost: a forward pass over ROWS rows, and the scores of ROWS · POSITIONS queries in each layer.
    """
    drawn = samples(batches, ROWS, POSITIONS, device)
    attending = [member for member in members(stack.plan) if isinstance(member.of(stack), Attends)]
    units = 1 + max(sample.unit for sample in drawn)
    sums = {member: np.zeros((units, len(MEASURES))) for member in attending}
    positions = np.zeros((units, 1))
    with evaluating(stack), torch.inference_mode():
        for sample in drawn:
            positions[sample.unit] += len(sample.at)
            for member, found in _read(stack, sample, attending):
                sums[member][sample.unit] += found.double().sum(0).cpu().numpy()
    rows = []
    for (grouping, group), mixers in groups(stack.plan).items():
        own = [sums[member] for member in attending if any(mixer.covers(member) for mixer in mixers)]
        totals = sum(own, np.zeros((units, len(MEASURES))))
        weights = np.broadcast_to(len(own) * positions, totals.shape)
        for measure, found in zip(MEASURES, means(totals, weights), strict=True):
            if found is not None:
                where = {"grouping": grouping, "group": group, "split": split, "tokens": int(positions.sum())}
                rows.append(measured(measure, found, **where))
    return rows


def _read(
    stack: Stack, sample: Sample, attending: Sequence[Member]
) -> Iterator[tuple[Member, Float[Tensor, "n measures"]]]:
    """Yield the measures of each position of a sample, the mean over heads, for each mixer."""
    with watching(stack, attending) as seen:
        stack.run(stack.embedding(sample.tokens))
    distance = (sample.at[:, None] - torch.arange(sample.tokens.shape[1], device=sample.at.device)).abs()
    for member in attending:
        weights = member.of(stack).attention(seen[member][0], sample.at)[0]  # h n t
        read = (weights * distance).sum(-1), torch.special.entr(weights).sum(-1), weights[..., 0]
        yield member, torch.stack([each.mean(0) for each in read], dim=-1)
