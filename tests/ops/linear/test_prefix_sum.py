"""Decayed prefix sums by matrix products against the loop."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.linear.prefix_sum import decayed_prefix_sum, recurrent_prefix_sum


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    n=st.one_of(st.integers(1, 40), st.sampled_from([255, 256, 257, 300])),
    strength=st.sampled_from([0.0, 0.01, 1.0, 100.0]),
    started=st.booleans(),
)
def test_matrix_products_match_the_loop(n: int, strength: float, started: bool) -> None:
    torch.manual_seed(n)
    x = torch.randn(2, 3, n, 4, dtype=torch.float64, requires_grad=True)
    log_decay = (-strength * torch.rand(2, 3, n, dtype=torch.float64)).requires_grad_()
    start = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) if started else None
    found, expected = decayed_prefix_sum(x, log_decay, start), recurrent_prefix_sum(x, log_decay, start)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    variables = [each for each in (x, log_decay, start) if each is not None]
    grad_outputs = [torch.randn_like(each) for each in expected]
    # Without an initial state, the first state does not depend on any input: only the sum always
    # has a gradient.
    gradients = (
        torch.autograd.grad(
            (a * grad_outputs[0]).sum() + (b * grad_outputs[1]).sum(), variables, materialize_grads=True
        )
        for a, b in (found, expected)
    )
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)
