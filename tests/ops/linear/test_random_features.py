"""The random features of FAVOR+ estimate the softmax kernel without bias."""

import math

import pytest
import torch

from hybridlab.ops.linear.random_features import draw_orthogonal_directions, log_positive_features


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("features", "width"), [(16, 8), (20, 8), (5, 8), (1, 1), (7, 3)])
def test_directions_are_orthogonal_in_blocks(features: int, width: int) -> None:
    directions = draw_orthogonal_directions(features, width)
    assert directions.shape == (features, width)
    for block in directions.split(width):
        products = block @ block.mT
        torch.testing.assert_close(products, products.diagonal().diag(), rtol=0, atol=1e-5)


def test_directions_are_gaussian() -> None:
    draws = draw_orthogonal_directions(4000 * 8, 8).unflatten(0, (4000, 8))
    # Each entry of each direction has mean 0 and variance 1, within five standard errors.
    assert draws.mean(0).abs().max() < 5 / math.sqrt(4000)
    assert (draws.square().mean(0) - 1).abs().max() < 5 * math.sqrt(2 / 4000)
    assert (draws.pow(4).mean() - 3).abs() < 0.1


def test_kernel_is_unbiased() -> None:
    q, k = 0.5 * torch.randn(2, 10, 8, dtype=torch.float64)
    # Each block of 8 orthogonal directions is an independent estimate.
    draws = 20_000
    directions = draw_orthogonal_directions(draws * 8, 8)
    phi_q, phi_k = (
        log_positive_features(x[None, None], directions).exp()[0, 0].unflatten(-1, (draws, 8)).transpose(0, 1)
        for x in (q, k)
    )
    estimates = draws * (phi_q @ phi_k.mT)
    expected = (q @ k.mT / math.sqrt(8)).exp()
    error = estimates.std(0) / math.sqrt(draws)
    assert ((estimates.mean(0) - expected).abs() < 5 * error).all()
    assert (error < 0.05 * expected).all()


def test_logarithms_are_taken_in_float32() -> None:
    directions = draw_orthogonal_directions(16, 8)
    x = torch.randn(1, 1, 5, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = log_positive_features(x, directions)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, log_positive_features(x.float(), directions))
