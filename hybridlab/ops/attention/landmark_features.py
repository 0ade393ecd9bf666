"""Features whose products approximate the exponential kernel: Nyström's method with one feature per
landmark.

The kernel is exp(x·y / √k). With a landmark l it is exp((x·l - l·l/2) / √k), scaled so that the
landmark's kernel with itself is 1: the scales cancel in the product, and the ridge has the same
effect on all landmarks.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def dense_landmark_products(
    x: Float[Tensor, "*b t k"], y: Float[Tensor, "*b s k"], landmarks: Float[Tensor, "*b m k"], ridge: float
) -> Float[Tensor, "*b t s"]:
    """Return κ(x, L) (κ(L, L) + ridge·I)⁻¹ κ(L, y): the definition of the products of features."""
    scale = landmarks.shape[-1] ** -0.5
    size = landmarks.square().sum(-1) * (scale / 2)
    from_x, from_y = ((each @ landmarks.mT * scale - size[..., None, :]).exp() for each in (x, y))
    middle = (landmarks @ landmarks.mT * scale - size[..., None, :] - size[..., :, None]).exp()
    identity = torch.eye(landmarks.shape[-2], dtype=landmarks.dtype, device=landmarks.device)
    return from_x @ torch.linalg.inv(middle + ridge * identity) @ from_y.mT


def landmark_features(
    x: Float[Tensor, "*b t k"], landmarks: Float[Tensor, "*b m k"], whitening: Float[Tensor, "*b m m"]
) -> Float[Tensor, "*b t m"]:
    """Return φ(x) = R⁻¹ κ(L, x), so that φ(x)·φ(y) equals `dense_landmark_products`; `whitening` is
    R⁻¹.

    The first i features depend only on the first i landmarks: further landmarks add features and
    leave these unchanged. Exponents are not shifted: the caller bounds x and the landmarks.
    """
    scaled = landmarks * landmarks.shape[-1] ** -0.5
    return (x @ scaled.mT - (scaled * landmarks).sum(-1)[..., None, :] / 2).exp() @ whitening.mT


def landmark_whitening(landmarks: Float[Tensor, "*b m k"], ridge: float) -> Float[Tensor, "*b m m"]:
    """Return R⁻¹, where R Rᵀ = κ(L, L) + ridge·I is the Cholesky decomposition, in the dtype of the
    landmarks.

    The dtype should be float32 at least. The ridge bounds the effect of near-duplicate landmarks:
    ‖R⁻¹‖ <= ridge^(-1/2).
    """
    scale = landmarks.shape[-1] ** -0.5
    identity = torch.eye(landmarks.shape[-2], dtype=landmarks.dtype, device=landmarks.device)
    distance = (landmarks[..., :, None, :] - landmarks[..., None, :, :]).square().sum(-1)
    # No check for errors, which would wait for the device: the ridge rules them out.
    factor, _ = torch.linalg.cholesky_ex(torch.exp(distance * (-scale / 2)) + ridge * identity)
    return torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
