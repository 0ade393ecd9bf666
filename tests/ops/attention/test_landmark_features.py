"""Landmark features: their products against Nyström's formula with a plain inverse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.attention.landmark_features import dense_landmark_products, landmark_features, landmark_whitening


@settings(max_examples=30, deadline=None, derandomize=True)
@given(t=st.integers(1, 20), landmarks=st.integers(1, 12), ridge=st.sampled_from([1e-3, 1e-2, 1.0]))
def test_products_match_the_formula(t: int, landmarks: int, ridge: float) -> None:
    torch.manual_seed(t)
    x, y = torch.randn(2, 2, 3, t, 6, dtype=torch.float64).requires_grad_().unbind()
    few = torch.randn(2, 3, landmarks, 6, dtype=torch.float64, requires_grad=True)
    whitening = landmark_whitening(few, ridge)
    found = landmark_features(x, few, whitening) @ landmark_features(y, few, whitening).mT
    wanted = dense_landmark_products(x, y, few, ridge)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, (x, y, few), into),
        torch.autograd.grad(wanted, (x, y, few), into),
        rtol=1e-6,
        atol=1e-6,
    )


def test_landmarks_themselves_have_the_exact_kernel() -> None:
    few = torch.randn(1, 8, 6, dtype=torch.float64)
    features = landmark_features(few, few, landmark_whitening(few, 1e-10))
    torch.testing.assert_close(features @ features.mT, (few @ few.mT / 6**0.5).exp(), rtol=1e-5, atol=1e-5)


def test_later_landmarks_leave_earlier_features_unchanged() -> None:
    x, few = torch.randn(1, 9, 6, dtype=torch.float64), torch.randn(1, 8, 6, dtype=torch.float64)
    whole = landmark_features(x, few, landmark_whitening(few, 1e-3))
    part = landmark_features(x, few[:, :5], landmark_whitening(few[:, :5], 1e-3))
    torch.testing.assert_close(whole[..., :5], part, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spread", [0.0, 1e-7, 1e-3])
def test_near_duplicates_keep_the_features_bounded(spread: float) -> None:
    torch.manual_seed(0)
    few = (torch.randn(1, 1, 16) + spread * torch.randn(1, 32, 16)).requires_grad_()
    x = torch.randn(1, 100, 16, requires_grad=True)
    whitening = landmark_whitening(few, 1e-3)
    features = landmark_features(x, few, whitening)
    # ‖R⁻¹‖ <= ridge^(-1/2), up to the rounding of the kernel.
    assert torch.linalg.matrix_norm(whitening, 2).item() < 1.05 * 1e-3**-0.5
    exact = dense_landmark_products(x.double(), x.double(), few.double(), 1e-3)
    torch.testing.assert_close(features @ features.mT, exact.float(), rtol=1e-2, atol=1e-2)
    gradients = torch.autograd.grad(features.square().sum(), (x, few))
    assert all(each.isfinite().all() and each.abs().max() < 1e5 for each in gradients)
