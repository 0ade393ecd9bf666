"""Comparison of a mixer with its slow reference form."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hybridlab.mixers.base import Mixer

WIDTH = 32


def agree(mixer: Mixer, oracle: Callable[[Any, Tensor], Tensor], t: int) -> None:
    """Compare outputs, and gradients of the input and all parameters, in float64 on t tokens."""
    torch.manual_seed(t)
    mixer = mixer.double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(2, t, WIDTH, dtype=torch.float64, requires_grad=True)
    sought = [x, *mixer.parameters()]
    y, expected = mixer(x), oracle(mixer, x)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(y)
    # On a single token decays and positions have no effect, and need not be in the oracle's graph.
    found, wanted = (
        torch.autograd.grad((each * weights).sum(), sought, materialize_grads=True) for each in (y, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
