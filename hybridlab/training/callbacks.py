"""What is watched while a stack trains: the learning curve, divergence, random numbers, the progress bar."""

import math
import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar

from hybridlab.records.claim import Claim
from hybridlab.records.measurement import Measurement


class DivergedError(RuntimeError):
    """The training loss is no longer a number."""


class Curve(lightning.Callback):
    """The learning curve and the throughput, kept through a resume.

    Rows are taken at the trainer's logging steps and at each validation: Lightning's own `self.log` costs about half a
    millisecond a key and step whether the step is logged or not, and a CPU step may be a few milliseconds.
    """

    def __init__(self, tokens_per_step: int) -> None:
        self.tokens_per_step = tokens_per_step
        self.rows: list[Measurement] = []
        self.steps_timed = 0
        self.seconds = 0.0
        self._resumed_at: float | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on per second, validation left out."""
        return self.steps_timed * self.tokens_per_step / self.seconds if self.seconds else 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock, once after each pause: a step's time includes getting its data."""
        if self._resumed_at is None:
            self._resumed_at = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take a row at logging steps; stop the run if the loss has diverged."""
        self.steps_timed += 1
        step = trainer.global_step
        if step % trainer.log_every_n_steps and step != trainer.max_steps:
            return
        nll = float(trainer.strategy.reduce(pl_module.last_nll, reduce_op="mean"))  # over the devices
        self._lap()
        if not math.isfinite(nll):
            raise DivergedError(f"the training loss is {nll} at step {step}")
        self._add(trainer, "train", nll, step)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock while validating."""
        if self._resumed_at is not None:
            self._lap()
            self._resumed_at = None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the validation loss as a row."""
        if "validation_nll" in trainer.callback_metrics:
            self._add(trainer, "validation", float(trainer.callback_metrics["validation_nll"]), trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run goes on from."""
        return {"rows": [vars(row) for row in self.rows], "steps_timed": self.steps_timed, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rows = [Measurement(**row) for row in state_dict["rows"]]
        self.steps_timed, self.seconds = state_dict["steps_timed"], state_dict["seconds"]

    def _lap(self) -> None:
        if self._resumed_at is not None:
            now = time.perf_counter()
            self.seconds += now - self._resumed_at
            self._resumed_at = now

    def _add(self, trainer: Any, split: str, nll: float, step: int) -> None:
        tokens = step * self.tokens_per_step
        row = Measurement(measure="nll", split=split, value=nll, unit="nats/token", step=step, tokens=tokens)
        self.rows.append(row)
        for logger in trainer.loggers:
            logger.log_metrics({row.name: nll, "tokens": tokens, "tokens_per_second": self.tokens_per_second}, step)


class RandomState(lightning.Callback):
    """Puts PyTorch's random state into checkpoints, which Lightning leaves out: dropout goes on as it would have."""

    def state_dict(self) -> dict[str, Any]:
        """Return the generators' states."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: building and moving the model draws numbers in between."""
        self._saved = state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Put the generators back."""
        if (saved := getattr(self, "_saved", None)) is not None:
            torch.set_rng_state(saved["cpu"].cpu())
            if saved["cuda"]:
                torch.cuda.set_rng_state_all([state.cpu() for state in saved["cuda"]])


class StillOurs(lightning.Callback):
    """Stops a run that another launcher has taken over, before it writes into the other's folder."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Look at the claim."""
        self.claim.check()


class Progress(RichProgressBar):
    """Lightning's bar, with the loss and tokens per second beside the time left."""

    def __init__(self, curve: Curve) -> None:
        super().__init__()
        self.curve = curve

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Return what stands at the end of the bar."""
        if not self.curve.rows:
            return {}
        latest = self.curve.rows[-1]
        return {latest.name: f"{latest.value:.3f}", "tokens/s": f"{self.curve.tokens_per_second:,.0f}"}
