"""How Lightning trains a stack: the loss of a batch, the optimiser, the validation loss."""

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.training.optimiser import AdamWCosine


class StackModule(lightning.LightningModule):
    """A stack under training. `steps` is the length of the whole schedule."""

    def __init__(self, stack: Stack, optimiser: AdamWCosine, steps: int, *, compiled: bool = False) -> None:
        super().__init__()
        self.stack = stack
        self.optimiser = optimiser
        self.steps = steps
        # Only training steps run compiled: evaluation works by forward hooks, which a compiled stack ignores.
        self.logits = torch.compile(stack.forward) if compiled else stack.forward
        self.last_nll: Tensor | None = None  # nats per supervised token of the latest training step

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the mean NLL of the batch's supervised tokens."""
        logits = self.logits(batch.inputs, batch.documents)
        if self.trainer.world_size == 1:
            loss = _nll(logits, batch.targets, "mean")
        else:
            loss = _nll(logits, batch.targets, "sum") / self._mean_scored(batch)
        self.last_nll = loss.detach()
        return loss

    def _mean_scored(self, batch: Batch) -> Tensor:
        """Return the mean over the devices of their supervised tokens.

        Lightning averages gradients over the devices: so divided, they add up to the mean over the tokens of the whole batch.
        """
        scored = (batch.targets != IGNORED).sum().float()
        return self.trainer.strategy.reduce(scored, reduce_op="mean")  # type: ignore[return-value]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the mean NLL of all supervised tokens of the validation split."""
        scored = int((batch.targets != IGNORED).sum())
        total = _nll(self.stack.forward(batch.inputs, batch.documents), batch.targets, "sum")
        self.log("validation_nll", total / scored, batch_size=scored, logger=False, on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule."""
        return self.optimiser.configure(self, self.steps)


def _nll(logits: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORED, reduction=reduction)
