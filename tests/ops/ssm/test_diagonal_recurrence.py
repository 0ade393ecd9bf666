"""The complex diagonal recurrence in chunks against the loop."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.ops.ssm.diagonal_recurrence import chunked_diagonal_recurrence, recurrent_diagonal_recurrence


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    t=st.one_of(st.integers(1, 40), st.sampled_from([99, 100, 101, 150])),
    chunk=st.sampled_from([1, 2, 3, 8, 32, 200]),
    strength=st.sampled_from([0.0, 0.01, 1.0, 100.0]),
    continued=st.booleans(),
)
def test_chunks_match_the_loop(t: int, chunk: int, strength: float, continued: bool) -> None:
    torch.manual_seed(t)
    x = torch.randn(2, 3, 2, t, dtype=torch.float64, requires_grad=True)
    log_radius = (-strength * torch.rand(3, dtype=torch.float64)).requires_grad_()
    angle = (4 * torch.randn(3, dtype=torch.float64)).requires_grad_()
    initial_state = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True) if continued else None
    found = chunked_diagonal_recurrence(x, log_radius, angle, initial_state, chunk)
    expected = recurrent_diagonal_recurrence(x, log_radius, angle, initial_state)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    variables = [each for each in (x, log_radius, angle, initial_state) if each is not None]
    grad_outputs = [torch.randn_like(each) for each in expected]
    torch.testing.assert_close(
        *(torch.autograd.grad(pair, variables, grad_outputs, materialize_grads=True) for pair in (found, expected)),
        rtol=1e-8,
        atol=1e-8,
    )


def test_strong_decays_and_long_sequences_stay_finite() -> None:
    x, initial_state = torch.randn(1, 4, 2, 5000, requires_grad=True), torch.randn(1, 4, 2)
    log_radius = torch.tensor([0.0, -1e-4, -30.0, -1e30]).requires_grad_()
    angle = torch.tensor([0.0, 3.0, 1.0, 100.0]).requires_grad_()
    h, last = chunked_diagonal_recurrence(x, log_radius, angle, initial_state)
    assert h.isfinite().all()
    assert last.isfinite().all()
    gradients = torch.autograd.grad(h.mean(), [x, log_radius, angle])
    assert all(each.isfinite().all() for each in gradients)


def test_half_precision_is_summed_in_float32() -> None:
    x = torch.randn(2, 3, 2, 100)
    log_radius, angle = -torch.rand(3), torch.randn(3)
    with torch.autocast("cpu", torch.bfloat16):
        h, last = chunked_diagonal_recurrence(x.bfloat16(), log_radius, angle)
    assert (h.dtype, last.dtype) == (torch.float32, torch.float32)
    expected, _ = recurrent_diagonal_recurrence(x.bfloat16().float(), log_radius, angle)
    torch.testing.assert_close(h, expected, rtol=1e-5, atol=1e-5)
