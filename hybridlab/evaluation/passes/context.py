"""What every pass over the data is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.slices import Slice


@dataclass(frozen=True, kw_only=True)
class Context:
    """A trained stack, the batches to score it on, and the settings that all measures share."""

    stack: Stack
    task: Task
    batches: Sequence[Batch]
    device: torch.device
    split: str  # that the batches are of
    slices: Sequence[Slice]  # that measures are broken down by
    groupings: Sequence[str]  # of layers: group (declared), mixer (all of a kind), layer (each alone)
    budget: float | None  # of interventions, in plain evaluations of the batches; None: no limit
    batch: int  # sequences at a time

    @cached_property
    def tokens(self) -> int:
        """The number of tokens of the batches."""
        return sum(batch.inputs.numel() for batch in self.batches)

    @cached_property
    def length(self) -> int:
        """The length of the longest sequence."""
        return max(batch.inputs.shape[1] for batch in self.batches)
