"""What attention reads: how far away, how spread out, and how much on the first token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.evaluation.passes.capture_io import watching
from hybridlab.evaluation.passes.eval_mode import evaluating
from hybridlab.evaluation.passes.from_interval import measured
from hybridlab.evaluation.passes.mixer_refs import Member, groups, members
from hybridlab.evaluation.passes.samples import Sample, check_share, samples
from hybridlab.evaluation.passes.scores import means
from hybridlab.mixers.base import Attends, check_counts
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch

MEASURES = ("attention_distance", "attention_entropy", "attention_first")


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Distance, entropy and share on the first token of attention, from some positions of a share of the rows.

    Each is a mean over heads, over a sample of the positions that something is predicted from, and over those mixers of a group
    that say how they attend (`hybridlab.mixers.base.Attends`); of a parallel one, over its parts that do. By layer group,
    kind of mixer, part and layer.

    The cost, in plain evaluations: `share`, and the scores of `positions` queries a row in each layer that attends.
    """

    share: float = 1 / 16
    positions: int = 32

    def __post_init__(self) -> None:
        check_share(self.share)
        check_counts(positions=self.positions)

    def measure(
        self, stack: Stack, task: Task, batches: Sequence[Batch], device: torch.device, split: str
    ) -> list[Measurement]:
        """Return the rows of the record; none for a group in which nothing attends."""
        drawn = samples(stack, batches, self.share, self.positions, device)
        attending = [member for member in members(stack.plan) if isinstance(member.of(stack), Attends)]
        units = 1 + max((sample.unit for sample in drawn), default=0)
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
            where = {"grouping": grouping, "group": group, "split": split, "tokens": int(positions.sum())}
            for measure, found in zip(MEASURES, means(totals, weights), strict=True):
                if found is not None:
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
