"""Batches for Lightning: a training stream that can be resumed, and a stored validation set."""

from collections.abc import Iterable, Iterator
from typing import Any

from hybridlab.tasks.batch import Batch


class BatchStream:
    """The training batches of steps 0, 1, ..., `steps` - 1 of a task, made in this process.

    A batch is a function of the task's seed and the step, so the step alone resumes the stream
    exactly. Each of `ranks` processes draws the same batch and takes its share of the sequences.
    """

    def __init__(self, task: Any, steps: int, rank: int = 0, ranks: int = 1) -> None:
        self.task = task
        self.steps = steps
        self.rank = rank
        self.ranks = ranks
        self.step = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        while self.step < self.steps:
            self.step += 1
            batch = self.task.train_batch(self.step - 1)
            yield batch if self.ranks == 1 else _share(batch, self.rank, self.ranks)
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches yielded so far."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after that number of batches."""
        self.step = state["step"]


class BatchList:
    """Batches that are made once and used at every validation.

    Lightning would take a plain list for several loaders.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = tuple(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def _share(batch: Batch, rank: int, ranks: int) -> Batch:
    """Return every `ranks`-th sequence of a batch, from number `rank` on."""
    documents = None if batch.documents is None else batch.documents[rank::ranks]
    slices = {name: values[rank::ranks] for name, values in batch.slices.items()}
    return Batch(batch.inputs[rank::ranks], batch.targets[rank::ranks], slices, documents)
