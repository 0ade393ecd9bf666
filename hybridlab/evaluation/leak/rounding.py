"""What rounding alone can change, by the coarsest dtype that is used inside a module."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# A fast Fourier transform in float64 changes a prefix by about 1e-15 of the output's magnitude.
EXACT = 1e-9
FLOAT32 = torch.finfo(torch.float32).eps
# What calls of one shape may differ by, and calls of different shapes, in units of the dtype's eps.
SAME_SHAPE = {"single": 16.0, "half": 1.0}
OTHER_SHAPE = {"single": 128.0, "half": 8.0}
AMPLIFIED = 8.0  # times what noise as large as rounding changes
FEW_BITS = 64.0
WIDESPREAD = 0.5  # rounding in float32 changes few numbers in half precision, a leak most


def moved(before: Float[Tensor, "b t d"], after: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
    """Return how much each position has changed: the root mean square over channels, relative to
    that of all outputs; infinite where a value is not finite now and was before.
    """
    old, new = before.double(), after.double()
    scale = torch.where(old.isfinite(), old, 0).square().mean().sqrt().clamp(min=1e-30)
    change = (new - old).square().mean(-1).sqrt() / scale
    change = torch.where(change.isfinite(), change, torch.inf)
    return torch.where(old.isfinite().all(-1), change, 0)


def share_moved(before: Tensor, after: Tensor, fixed: Bool[Tensor, "b t"]) -> float:
    """Return the share of the numbers at fixed positions that have changed by more than rounding in
    float32 does, in the sequence where it is largest.
    """
    old, new = before.double(), after.double()
    scale = torch.where(old.isfinite(), old, 0).square().mean().sqrt()
    changed = ~((new - old).abs() <= FEW_BITS * FLOAT32 * scale) & fixed[..., None]
    shares = changed.double().mean(-1).sum(1) / fixed.sum(1).clamp(min=1)
    return float(shares.max())


class CoarsestDtype(TorchDispatchMode):
    """Watches the floating dtypes of all results: `eps` is the largest machine epsilon seen."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex()):
                self.eps = max(self.eps, torch.finfo(leaf.dtype).eps)
        return result


def is_rounding(
    call: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b t d"],
    change: Float[Tensor, "b t"],
    fixed: Bool[Tensor, "b t"],
    share: float | None,
) -> bool:
    """Return whether rounding explains how far outputs of `call` for x have moved where they are
    `fixed`.

    Anything below a bound for the coarsest dtype seen inside is rounding, and so is what noise of
    the same size in x brings about: a choice (a top-k) may flip, and a recurrence may amplify.
    `share` is the `share_moved` between two calls of one shape, None if shapes differed.
    """
    largest = float(change[fixed].max())
    if largest <= EXACT:
        return True
    with CoarsestDtype() as seen:
        y = call(x)
    if seen.eps <= torch.finfo(torch.float64).eps:
        eps = torch.finfo(torch.float64).eps
        bound = EXACT
    else:
        eps = seen.eps
        bound = eps * (OTHER_SHAPE if share is None else SAME_SHAPE)["single" if eps <= FLOAT32 else "half"]
    if share is not None and eps > FLOAT32 and share > WIDESPREAD:
        return False
    if largest <= bound:
        return True
    # Calls of one shape round alike in half precision, except after sums in float32 whose order the
    # data decide (Fourier transforms).
    size = eps if share is None else min(eps, 4 * FLOAT32)
    responses = [moved(y, call(_noisy(x, size)))[fixed].max() for _ in range(2)]
    return largest <= AMPLIFIED * float(torch.stack(responses).max())


def _noisy(x: Tensor, size: float) -> Tensor:
    """Return x with relative noise of a size; if x is coarser, with some last bits flipped."""
    eps = torch.finfo(x.dtype).eps
    if size >= eps:
        return x * (1 + size * torch.randn_like(x))
    return torch.where(torch.rand_like(x, dtype=torch.float32) < 0.01, x * (1 + eps), x)
