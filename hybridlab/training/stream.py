"""The rows as Lightning wants them: a training stream that knows where it is, and a validation set kept ready."""

from collections.abc import Iterable, Iterator
from typing import Any

from hybridlab.tasks.batch import Batch


class BatchStream:
    """The batches of steps 0, 1, ..., `steps` - 1 of a task, made in this process.

    A batch is a function of the task's seed and the step, so one number resumes the stream exactly.
    """

    def __init__(self, task: Any, steps: int) -> None:
        self.task = task
        self.steps = steps
        self.step = 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        while self.step < self.steps:
            self.step += 1
            yield self.task.train_batch(self.step - 1)
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """Return how many batches have been handed out."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the given number of batches."""
        self.step = state["step"]


class BatchList:
    """Batches made once and gone through at every validation. (Lightning takes a plain list for several loaders.)"""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = tuple(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)
