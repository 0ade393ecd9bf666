"""The pseudo-inverse of a row-stochastic matrix by matrix products."""

import torch
from jaxtyping import Float
from torch import Tensor


def exact_pseudo_inverse(a: Float[Tensor, "*b m m"]) -> Float[Tensor, "*b m m"]:
    """Return the Moore-Penrose inverse by singular value decomposition: the limit of the
    iteration."""
    return torch.linalg.pinv(a)


def iterative_pseudo_inverse(a: Float[Tensor, "*b m m"], iterations: int) -> Float[Tensor, "*b m m"]:
    """Approximate the Moore-Penrose inverse of a matrix whose rows are positive and sum to 1,
    without a decomposition.

    Z ← ¼ Z (13 I − AZ (15 I − AZ (7 I − AZ))), from Z = Aᵀ / (‖A‖₁ ‖A‖∞) (Nyströmformer,
    2102.03902, equation 11). Norms are taken per matrix: a maximum over the batch would make a
    sequence depend on the others. A few iterations invert small singular values only in part, which
    keeps the result small.
    """
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    # ‖A‖∞, the largest row sum, is 1.
    z = a.mT / a.sum(-2).amax(-1)[..., None, None]
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * identity - az @ (15 * identity - az @ (7 * identity - az)))
    return z
