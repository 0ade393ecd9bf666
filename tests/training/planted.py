"""A mixer that returns what is not finite when a test says so."""

from typing import ClassVar

import torch

from hybridlab.mixers.conv.gated_conv import GatedConv
from hybridlab.training.module import StackModule


class Planted(GatedConv):
    """`GatedConv` whose output, or whose gradient, is not finite in some steps of training; or
    whose output is not once it is trained, in evaluation mode, for sequences of some lengths.
    """

    forward_step: ClassVar[int] = 0
    backward_step: ClassVar[int] = 0
    lengths: ClassVar[tuple[int, ...]] = ()
    step: ClassVar[int] = 0  # of training, which is under way; 0: none is
    trained: ClassVar[bool] = False

    def _mix(self, x, past):
        y, inputs = super()._mix(x, past)
        if Planted.step and Planted.step == self.forward_step:
            y = y + torch.nan
        if Planted.step and Planted.step == self.backward_step:
            y = BadGradient.apply(y)
        if Planted.trained and not self.training and x.shape[1] in self.lengths:
            y = y + torch.inf
        return y, inputs


class BadGradient(torch.autograd.Function):
    """The identity, with a gradient of nan."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan


def plant(monkeypatch, **when):
    """Make every `Planted` fail in a step of training, or for some lengths in evaluation mode."""
    for name, value in {"trained": False, **when}.items():
        monkeypatch.setattr(Planted, name, value)
    trained = StackModule.training_nll

    def training_nll(module, batch):
        Planted.step = module.trainer.global_step + 1
        try:
            return trained(module, batch)
        finally:
            Planted.step, Planted.trained = 0, True

    monkeypatch.setattr(StackModule, "training_nll", training_nll)
