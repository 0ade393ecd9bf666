"""The conditions of a run that a leak may depend on."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from hybridlab.evaluation.evaluation import Evaluation
from hybridlab.tasks.base import Task

CPU = torch.device("cpu")
MOST_SEQUENCES = 4  # of a probe's batch: enough for three cuts and a sequence that stays the same
SHORT = 16  # tokens
MOST_SHORT = 64  # sequences of so few tokens
MOST_TOKENS = 16384  # of a probe's batch, except that it has two sequences at least


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How a run trains and evaluates: lengths in tokens, sequences of a batch, Lightning's name of
    the precision, the device, and whether sequences hold several documents.
    """

    length: int
    evaluated_length: int
    batch: int = MOST_SEQUENCES
    precision: str = "32-true"
    device: torch.device = CPU
    packed: bool = False

    @classmethod
    def of(
        cls, length: int, *, evaluated_length: int | None = None, device: str | torch.device = CPU, **others: Any
    ) -> "Conditions":
        """Return the conditions of a run, which is evaluated at its own length unless another is
        given.
        """
        return cls(length=length, evaluated_length=evaluated_length or length, device=torch.device(device), **others)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        name = str(self.precision)
        if name.startswith("64"):
            return torch.float64
        return self._half if name.endswith("-true") and self._half is not None else torch.float32

    @property
    def name(self) -> str:
        """The precision and the device, as a message names them."""
        precision = str(self.precision)
        return f"{'float32' if precision in ('32', '32-true') else precision} on the {self.device.type.upper()}"

    @property
    def exact_device(self) -> torch.device:
        """Where float64 is probed: Apple's GPUs have none."""
        return self.device if self.device.type == "cuda" else CPU

    @property
    def mixed(self) -> bool:
        """Whether training runs under autocast, which evaluation does not."""
        return self._half is not None and self.dtype == torch.float32

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Run the block in the precision of training, as Lightning does."""
        with ExitStack() as contexts:
            if self.mixed:
                contexts.enter_context(torch.autocast(self.device.type, self._half))
            elif self.dtype != torch.float32:
                contexts.callback(torch.set_default_dtype, torch.get_default_dtype())
                torch.set_default_dtype(self.dtype)
            yield

    @property
    def _half(self) -> torch.dtype | None:
        name = str(self.precision)
        return torch.bfloat16 if name.startswith("bf16") else torch.float16 if name.startswith("16") else None


def sequences_of(length: int, batch: int) -> int:
    """Return how many sequences of a batch a probe has: few long ones, and a whole batch of short
    ones.
    """
    few = MOST_SEQUENCES if length > SHORT else MOST_SHORT
    return max(2, min(batch, few, MOST_TOKENS // length))


def conditions_of(task: Task, evaluation: Evaluation, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `check_plan` and `check_trained` for a run, from its task,
    its evaluation and the node `trainer` of its configuration.
    """
    on_gpu = trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return {
        "precision": str(trainer.get("precision") or "32-true"),
        "device": "cuda" if on_gpu else "cpu",
        "evaluated_length": evaluation.window if task.windowed else task.length,
        "batch": max(task.batch, evaluation.batch),
        "packed": bool(getattr(task, "packed", False)),
    }
