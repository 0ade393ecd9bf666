"""The iteration towards the pseudo-inverse against a singular value decomposition."""

import torch

from hybridlab.ops.attention.pseudo_inverse import exact_pseudo_inverse, iterative_pseudo_inverse


def test_it_converges_to_the_pseudo_inverse() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, 2, 20, 20, dtype=torch.float64).mul(2).softmax(-1)
    exact = exact_pseudo_inverse(matrices)
    errors = [((iterative_pseudo_inverse(matrices, n) - exact).norm() / exact.norm()).item() for n in (2, 6, 12, 20)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-8


def test_an_easy_matrix_needs_few_iterations() -> None:
    easy = (torch.randn(2, 16, 16, dtype=torch.float64) + 8 * torch.eye(16)).softmax(-1)
    torch.testing.assert_close(iterative_pseudo_inverse(easy, 6), exact_pseudo_inverse(easy), rtol=1e-7, atol=1e-7)


def test_matrices_do_not_depend_on_the_rest_of_the_batch() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(4, 16, 16, dtype=torch.float64).mul(3).softmax(-1)
    together = iterative_pseudo_inverse(matrices, 6)
    for matrix, found in zip(matrices, together, strict=True):
        torch.testing.assert_close(found, iterative_pseudo_inverse(matrix[None], 6)[0], rtol=1e-12, atol=1e-12)


def test_a_singular_matrix_gives_a_finite_result() -> None:
    matrix = torch.full((1, 16, 16), 1 / 16, requires_grad=True)
    z = iterative_pseudo_inverse(matrix, 6)
    (gradient,) = torch.autograd.grad(z.sum(), matrix)
    torch.testing.assert_close(z, matrix.detach(), rtol=1e-3, atol=1e-3)
    assert gradient.isfinite().all()
