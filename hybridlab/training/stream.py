"""Batches for Lightning: a training stream that can be resumed, and a stored validation set."""

from collections.abc import Iterable, Iterator
from typing import Any

from hybridlab.tasks.batch import IGNORED, Batch

UNENDING = 10**12  # batches: more than any run reads


class BatchStream:
    """The training batches of a task, in the order of their numbers, made in this process.

    A step reads `micro_batches` of them; without `steps` the stream has no end. A batch is a
    function of the task's seed and its number, so the number alone resumes the stream exactly. Each
    of `ranks` processes draws the same batch and takes its share of the sequences.
    """

    def __init__(self, task: Any, steps: int | None, rank: int = 0, ranks: int = 1, micro_batches: int = 1) -> None:
        self.task = task
        self.steps = steps
        self.rank = rank
        self.ranks = ranks
        self.micro_batches = micro_batches
        self.step = 0
        self._drawn: dict[int, Batch] = {}  # those of the latest step

    def __len__(self) -> int:
        return UNENDING if self.steps is None else self.steps * self.micro_batches

    def __iter__(self) -> Iterator[Batch]:
        while self.step < len(self):
            self.step += 1
            batch = self._draw(self.step - 1)
            yield batch if self.ranks == 1 else _share(batch, self.rank, self.ranks)
        self.step = 0

    def supervised(self, step: int) -> int:
        """Return the number of supervised targets of a step: of all its batches, on all devices."""
        batches = range(step * self.micro_batches, (step + 1) * self.micro_batches)
        return sum(int((self._draw(number).targets != IGNORED).sum()) for number in batches)

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches yielded so far."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue after that number of batches."""
        self.step = state["step"]

    def _draw(self, number: int) -> Batch:
        """Draw a batch, once; the batches of its step are kept."""
        if number not in self._drawn:
            step = number // self.micro_batches
            kept = {old: batch for old, batch in self._drawn.items() if old // self.micro_batches == step}
            self._drawn = {**kept, number: self.task.train_batch(number)}
        return self._drawn[number]


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
