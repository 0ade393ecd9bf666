"""The pseudo-inverse of a row-stochastic matrix by matrix products."""

import torch
from jaxtyping import Float
from torch import Tensor


def exact_pseudo_inverse(a: Float[Tensor, "*b m m"]) -> Float[Tensor, "*b m m"]:
    """Give the Moore-Penrose inverse, by a singular value decomposition: what the iteration converges to."""
    return torch.linalg.pinv(a)


def iterative_pseudo_inverse(a: Float[Tensor, "*b m m"], iterations: int) -> Float[Tensor, "*b m m"]:
    """Approach the Moore-Penrose inverse of a matrix whose rows are positive and sum to 1, without a decomposition.

    Z ← ¼ Z (13 I − AZ (15 I − AZ (7 I − AZ))), from Z = Aᵀ / (‖A‖₁ ‖A‖∞) (Nyströmformer, 2102.03902, equation 11). Each
    matrix has norms of its own: a maximum over the batch would make a row depend on its batch mates. Of small singular
    values, a few iterations invert only a part, which is what keeps the result small.
    """
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    # ‖A‖∞, the largest sum of a row, is 1.
    z = a.mT / a.sum(-2).amax(-1)[..., None, None]
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * identity - az @ (15 * identity - az @ (7 * identity - az)))
    return z
