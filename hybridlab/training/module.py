"""The training of a stack by Lightning: the loss of a batch, the optimiser, the validation loss."""

from typing import Any

import lightning
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.training.compiler import compile_soundly
from hybridlab.training.optimiser import AdamWCosine

Supervised = Int64[Tensor, " n"] | None  # indices into the flattened targets of a batch; None: all are supervised


class StackModule(lightning.LightningModule):
    """A stack in training. `steps` is the length of the whole schedule.

    The final norm, the head and the loss are computed at supervised positions only.
    """

    def __init__(self, stack: Stack, optimiser: AdamWCosine, steps: int, *, compiled: bool = False) -> None:
        super().__init__()
        self.stack = stack
        self.optimiser = optimiser
        self.steps = steps
        # Only training steps are compiled: evaluation uses forward hooks, which a compiled stack
        # ignores. And only the layers, on sequences that are one document each: the number of
        # supervised positions and the documents of a sequence differ from step to step, and every
        # case would be compiled anew.
        self.hidden = compile_soundly(stack.hidden) if compiled else stack.hidden
        self.last_nll: Tensor | None = None  # in nats per supervised token, of the latest training step

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Batch, Supervised]:
        """Find the supervised positions while the batch is on the CPU.

        On a GPU this would wait for all queued work.
        """
        supervised = (batch.targets != IGNORED).flatten()
        return batch, None if supervised.all() else supervised.nonzero()[:, 0]

    def training_step(self, batch: tuple[Batch, Supervised], batch_index: int) -> Tensor:
        """Return the mean NLL of the batch's supervised tokens."""
        nll = self.training_nll(batch)
        loss = nll.mean() if self.trainer.world_size == 1 else nll.sum() / self._mean_scored(nll)
        self.last_nll = loss.detach()
        return loss

    def training_nll(self, batch: tuple[Batch, Supervised]) -> Float[Tensor, " n"]:
        """Return the NLL of each supervised token of a training batch."""
        sequences, supervised = batch
        if sequences.documents is None:
            hidden = self.hidden(sequences.inputs)
        else:
            hidden = self.stack.hidden(sequences.inputs, sequences.documents)
        return self._nll(hidden, sequences, supervised)

    def validation_step(self, batch: tuple[Batch, Supervised], batch_index: int) -> None:
        """Log the mean NLL of all supervised tokens of the validation split."""
        sequences, supervised = batch
        nll = self._nll(self.stack.hidden(sequences.inputs, sequences.documents), sequences, supervised)
        self.log("validation_nll", nll.mean(), batch_size=len(nll), logger=False, on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule."""
        return self.optimiser.configure(self, self.steps)

    def _mean_scored(self, nll: Tensor) -> Tensor:
        """Return the mean over the devices of the number of supervised tokens.

        Lightning averages gradients over the devices. Divided by this mean, they become those of
        the mean over all supervised tokens of the batch.
        """
        scored = torch.tensor(float(len(nll)), device=nll.device)
        return self.trainer.strategy.reduce(scored, reduce_op="mean")  # type: ignore[return-value]

    def _nll(self, hidden: Tensor, batch: Batch, supervised: Supervised) -> Tensor:
        """Return the NLL [n] of the supervised targets, from the output of the last layer."""
        x, targets = self.stack.pooled(hidden, batch.documents), batch.targets.flatten()
        x = x.flatten(0, batch.targets.ndim - 1)
        if supervised is not None:
            x, targets = x.index_select(0, supervised), targets[supervised]
        return self.stack.nll(x, targets)
