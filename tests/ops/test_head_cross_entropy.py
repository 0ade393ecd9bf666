import pytest
import torch
from torch import nn

from hybridlab.ops import head_cross_entropy as op
from hybridlab.ops.head_cross_entropy import (
    chunked_head_cross_entropy,
    head_cross_entropy,
    naive_head_cross_entropy,
)


def inputs(n=11, width=5, vocabulary=7, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    x = scale * torch.randn(n, width, generator=generator, dtype=dtype)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype)
    return x.requires_grad_(), weight.requires_grad_(), torch.randint(vocabulary, (n,), generator=generator)


def gradients(nll, *of):
    """Return the gradients of a sum in which each target has a different weight."""
    return torch.autograd.grad((nll * torch.arange(1.0, 1 + len(nll))).sum(), of)


@pytest.mark.parametrize("chunk", [1, 3, 4, 11, 100])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_chunked_loss_and_gradients_match_the_definition(chunk, scale):
    x, weight, targets = inputs(scale=scale)
    expected = naive_head_cross_entropy(x, weight, targets)
    found = chunked_head_cross_entropy(x, weight, targets, chunk)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        gradients(found, x, weight), gradients(expected, x, weight), rtol=1e-11, atol=1e-11 * scale
    )


def test_gradients_match_finite_differences():
    x, weight, targets = inputs(n=6, width=3, vocabulary=4)
    assert torch.autograd.gradcheck(lambda x, weight: chunked_head_cross_entropy(x, weight, targets, 4), (x, weight))


def test_no_targets_give_an_empty_loss_and_zero_gradients():
    x, weight, targets = inputs(n=0)
    for nll in (chunked_head_cross_entropy(x, weight, targets, 4), naive_head_cross_entropy(x, weight, targets)):
        assert nll.shape == (0,)
        assert all(not gradient.any() for gradient in gradients(nll, x, weight))


def test_under_autocast_products_are_in_half_precision_and_sums_in_float32():
    x, weight, targets = inputs(n=64, width=32, vocabulary=200, dtype=torch.float32)
    exact = naive_head_cross_entropy(x, weight, targets)
    with torch.autocast("cpu", torch.bfloat16):
        naive = naive_head_cross_entropy(x, weight, targets)
        chunked = chunked_head_cross_entropy(x, weight, targets, 10)
    assert naive.dtype == chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, naive, rtol=1e-5, atol=1e-5)
    wanted = gradients(exact, x, weight)
    for found in (gradients(chunked, x, weight), gradients(naive, x, weight)):
        assert [gradient.dtype for gradient in found] == [torch.float32, torch.float32]
        for one, other in zip(found, wanted, strict=True):
            assert (one - other).norm() < 0.01 * other.norm()


def test_a_large_vocabulary_is_never_multiplied_by_all_targets(monkeypatch):
    """The largest tensor, forward and backward, is one chunk of logits."""
    monkeypatch.setattr(op, "LOGITS", 4 * 50)
    x, weight, targets = inputs(n=33, width=5, vocabulary=50)
    with Largest() as made:
        gradients(head_cross_entropy(x, weight, targets), x, weight)
    assert made.elements == 50 * 5  # the weight's gradient
    with Largest() as made:
        gradients(naive_head_cross_entropy(x, weight, targets), x, weight)
    assert made.elements == 50 * 33


def test_a_small_input_uses_the_direct_form(monkeypatch):
    x, weight, targets = inputs()
    monkeypatch.setattr(op, "chunked_head_cross_entropy", nn.Identity())
    torch.testing.assert_close(head_cross_entropy(x, weight, targets), naive_head_cross_entropy(x, weight, targets))


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """A mode that records the number of elements of the largest tensor returned by any
    operation."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else [made]:
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return made
