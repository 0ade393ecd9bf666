"""Random features of the softmax kernel.

The mean of φ(q)·φ(k) over random directions is exp(q·k / √d).

FAVOR+ (Choromanski et al. 2020, 2009.14794, Lemma 1 and Section 2.4).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.ops.precision import accumulation_dtype, autocast_off


def draw_orthogonal_directions(features: int, width: int) -> Float[Tensor, "f d"]:
    """Draw Gaussian directions that are orthogonal within each block of `width`.

    Each direction combines the direction of one Gaussian vector with the norm of another, so its
    marginal is Gaussian and the kernel estimate stays unbiased; orthogonality lowers its variance.
    """
    blocks = -(-features // width)
    matrices, triangular = torch.linalg.qr(torch.randn(blocks, width, width))
    # QR chooses the signs. Undoing that choice makes the directions uniform on the sphere.
    signs = triangular.diagonal(dim1=-2, dim2=-1).sign()
    norms = torch.randn(blocks * width, width).norm(dim=-1, keepdim=True)
    return ((matrices * signs[:, None, :]).mT.flatten(0, 1) * norms)[:features].clone()


def log_positive_features(x: Float[Tensor, "b h t d"], directions: Float[Tensor, "f d"]) -> Float[Tensor, "b h t f"]:
    """Return log φ(x) = w·y - ‖y‖²/2 - log(f)/2 with y = x / d^¼, in at least float32."""
    with autocast_off(x):
        features, width = directions.shape
        dtype = accumulation_dtype(x)
        y = x.to(dtype) * width**-0.25
        offset = 0.5 * y.square().sum(-1, keepdim=True) + 0.5 * math.log(features)
        return y @ directions.to(dtype).mT - offset
