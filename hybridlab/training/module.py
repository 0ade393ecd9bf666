"""How Lightning trains a stack: the loss of a batch, the optimiser, the validation loss."""

from typing import Any

import lightning
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.training.compiler import compile_soundly
from hybridlab.training.optimiser import AdamWCosine

Places = Int64[Tensor, " n"] | None  # of the supervised among a batch's targets, laid flat; None: all of them


class StackModule(lightning.LightningModule):
    """A stack under training. `steps` is the length of the whole schedule.

    The final norm, the head and the loss see supervised positions alone.
    """

    def __init__(self, stack: Stack, optimiser: AdamWCosine, steps: int, *, compiled: bool = False) -> None:
        super().__init__()
        self.stack = stack
        self.optimiser = optimiser
        self.steps = steps
        # Only training steps run compiled: evaluation works by forward hooks, which a compiled stack ignores. And only the
        # layers of rows of one shape: how many positions are supervised and where documents lie differs from step to step,
        # and each case would be compiled anew.
        self.hidden = compile_soundly(stack.hidden) if compiled else stack.hidden
        self.last_nll: Tensor | None = None  # nats per supervised token of the latest training step

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Batch, Places]:
        """Find the supervised positions while they are on the CPU: finding them on a GPU would wait for all its work."""
        supervised = (batch.targets != IGNORED).flatten()
        return batch, None if supervised.all() else supervised.nonzero()[:, 0]

    def training_step(self, batch: tuple[Batch, Places], batch_index: int) -> Tensor:
        """Return the mean NLL of the batch's supervised tokens."""
        nll = self.training_nll(batch)
        loss = nll.mean() if self.trainer.world_size == 1 else nll.sum() / self._mean_scored(nll)
        self.last_nll = loss.detach()
        return loss

    def training_nll(self, batch: tuple[Batch, Places]) -> Float[Tensor, " n"]:
        """Return the NLL of each supervised token of a training batch."""
        rows, places = batch
        hidden = self.hidden(rows.inputs) if rows.documents is None else self.stack.hidden(rows.inputs, rows.documents)
        return self._nll(hidden, rows, places)

    def validation_step(self, batch: tuple[Batch, Places], batch_index: int) -> None:
        """Log the mean NLL of all supervised tokens of the validation split."""
        rows, places = batch
        nll = self._nll(self.stack.hidden(rows.inputs, rows.documents), rows, places)
        self.log("validation_nll", nll.mean(), batch_size=len(nll), logger=False, on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule."""
        return self.optimiser.configure(self, self.steps)

    def _mean_scored(self, nll: Tensor) -> Tensor:
        """Return the mean over the devices of their supervised tokens.

        Lightning averages gradients over the devices: so divided, they add up to the mean over the tokens of the whole batch.
        """
        scored = torch.tensor(float(len(nll)), device=nll.device)
        return self.trainer.strategy.reduce(scored, reduce_op="mean")  # type: ignore[return-value]

    def _nll(self, hidden: Tensor, batch: Batch, places: Places) -> Tensor:
        """Return the NLL [n] of the supervised targets, from the residual stream after the last layer."""
        x, targets = self.stack.pooled(hidden, batch.documents), batch.targets.flatten()
        x = x.flatten(0, batch.targets.ndim - 1)
        if places is not None:
            x, targets = x.index_select(0, places), targets[places]
        return self.stack.nll(x, targets)
