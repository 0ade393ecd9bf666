"""The training of a stack by Lightning: the loss of a batch, the optimiser, the validation loss."""

from collections.abc import Callable
from typing import Any

import lightning
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.training.compiler import compile_soundly
from hybridlab.training.divergence import Watch, check_weights, gradient_norm
from hybridlab.training.optimiser import AdamWCosine

Supervised = Int64[Tensor, " n"] | None  # indices into the flattened targets of a batch; None: all are supervised


class StackModule(lightning.LightningModule):
    """A stack in training. `steps` is the length of the whole schedule.

    `share`, where it is given, returns the share of the budget that is spent, which the schedule
    follows instead. `supervised` returns the number of supervised targets of a step, counted from
    0: of all its batches, on all devices. The final norm, the head and the loss are computed at
    supervised positions only.
    """

    def __init__(
        self,
        stack: Stack,
        optimiser: AdamWCosine,
        steps: int,
        *,
        compiled: bool = False,
        share: Callable[[], float] | None = None,
        supervised: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__()
        self.stack = stack
        self.optimiser = optimiser
        self.steps = steps
        self.share = share
        self.supervised = supervised
        self.watch = Watch()
        # Only training steps are compiled: evaluation uses forward hooks, which a compiled stack
        # ignores. And only the layers, on sequences that are one document each: the number of
        # supervised positions and the documents of a sequence differ from step to step, and every
        # case would be compiled anew.
        self.hidden = compile_soundly(stack.hidden) if compiled else stack.hidden
        self.last_nll: Tensor | None = None  # in nats per supervised token, of the latest training step so far

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Batch, Supervised]:
        """Find the supervised positions while the batch is on the CPU.

        On a GPU this would wait for all queued work.
        """
        supervised = (batch.targets != IGNORED).flatten()
        return batch, None if supervised.all() else supervised.nonzero()[:, 0]

    def training_step(self, batch: tuple[Batch, Supervised], batch_index: int) -> Tensor:
        """Return the mean NLL of the supervised tokens of a step, as far as it comes from a batch.

        Lightning averages gradients over the devices and divides a loss by the number of batches of
        a step; each supervised token of the step has the same weight all the same.
        """
        nll = self.training_nll(batch)
        parts = self.trainer.accumulate_grad_batches
        if parts * self.trainer.world_size == 1 and len(nll):
            loss = nll.mean()
            self.last_nll = loss.detach()
            return loss
        assert self.supervised is not None, "the number of supervised targets of a step is unknown"
        share = nll.sum() / (max(1, self.supervised(self.trainer.global_step)) / self.trainer.world_size)
        before = self.last_nll if batch_index % parts else None
        self.last_nll = share.detach() if before is None else before + share.detach()
        return share * parts

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients of a step as Lightning does, and watch their norm and the loss."""
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        norm = gradient_norm(parameters)
        assert self.last_nll is not None
        step, scaler = self.trainer.global_step + 1, getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is None:
            self.watch.see(step, training_loss=self.last_nll, gradient_norm=norm.to(self.last_nll.device))
        else:  # a step whose gradients overflow is left out, and the next has a smaller scale
            scale = scaler._scale
            self.watch.see(step, training_loss=self.last_nll, loss_scale=torch.where(scale < 1, torch.inf, scale))
        own = getattr(optimizer, "_step_supports_amp_scaling", False)  # Lightning refuses to clip for it
        if gradient_clip_val is not None and gradient_clip_val > 0 and gradient_clip_algorithm != "value" and not own:
            torch.nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)  # without computing it again
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

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
        if len(nll):
            self.log("validation_nll", nll.mean(), batch_size=len(nll), logger=False, on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule."""
        if self.share is None:
            return self.optimiser.configure(self, self.steps)
        return self.optimiser.configure(self, self.steps, self.share)

    def check(self) -> None:
        """Raise DivergedError if a loss, a norm of gradients or a weight is not finite."""
        self.watch.check(self.trainer.strategy)
        check_weights(self.stack, self.trainer.strategy, self.trainer.global_step, shown_by="training")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep a checkpoint that is not finite from being written in place of a good one."""
        self.check()

    def on_train_start(self) -> None:
        """Refuse a checkpoint whose weights are not finite."""
        check_weights(self.stack, self.trainer.strategy, self.trainer.global_step)

    def _nll(self, hidden: Tensor, batch: Batch, supervised: Supervised) -> Tensor:
        """Return the NLL [n] of the supervised targets, from the output of the last layer."""
        x, targets = self.stack.pooled(hidden, batch.documents), batch.targets.flatten()
        x = x.flatten(0, batch.targets.ndim - 1)
        if supervised is not None:
            x, targets = x.index_select(0, supervised), targets[supervised]
        return self.stack.nll(x, targets)
