"""The chunked delta rule against the recurrence and reference implementations."""

from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.linear.delta_rule import chunked_delta_rule, l2_normalise, recurrent_delta_rule
from tests.ops.test_references import reference, same


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    t=st.integers(1, 90),
    chunk=st.integers(1, 100),
    strongest=st.sampled_from([1.0, 2.0]),
    forgetting=st.sampled_from([None, 0.0, 0.1, 3.0, 50.0]),
    continued=st.booleans(),
)
def test_chunked_form_matches_the_recurrence(
    t: int, chunk: int, strongest: float, forgetting: float | None, continued: bool
) -> None:
    inputs = draw(t, strongest, forgetting, continued)
    found, expected = chunked_delta_rule(*inputs, chunk=chunk), recurrent_delta_rule(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(part) for part in expected]
    # With a single token and no initial state, the decay is not part of the graph or has a zero
    # gradient.
    variables = [x for x in inputs if x is not None]
    gradients = torch.autograd.grad(found, variables, grad_outputs, materialize_grads=True)
    expected_gradients = torch.autograd.grad(expected, variables, grad_outputs, materialize_grads=True)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)


def test_more_chunks_than_one_level_of_the_scan() -> None:
    inputs = draw(300, 1.0, 0.01, True)
    torch.testing.assert_close(
        chunked_delta_rule(*inputs, chunk=2), recurrent_delta_rule(*inputs), rtol=1e-9, atol=1e-9
    )


def test_a_key_retrieves_the_value_last_written_to_it() -> None:
    key, values = F.normalize(torch.randn(1, 1, 1, 8), dim=-1).expand(1, 1, 200, 8), torch.randn(1, 1, 200, 4)
    o, _ = chunked_delta_rule(key, key, values, torch.ones(1, 1, 200))
    torch.testing.assert_close(o, values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strongest", [1.0, 2.0])
@pytest.mark.parametrize("forgetting", [None, 0.01])
def test_repeated_keys_over_long_sequences_stay_exact_in_float32(strongest: float, forgetting: float | None) -> None:
    torch.manual_seed(0)
    t = 4200
    key = torch.randn(1, 2, 1, 64) + 1e-3 * torch.randn(1, 2, t, 64)
    q, k, v = l2_normalise(torch.randn(1, 2, t, 64)), l2_normalise(key), torch.randn(1, 2, t, 64)
    beta = strongest * torch.sigmoid(7 + torch.randn(1, 2, t))
    log_decay = None if forgetting is None else -forgetting * torch.rand(1, 2, t)
    inputs = [x.requires_grad_() for x in (q, k, v, beta, log_decay) if x is not None]
    o, state = chunked_delta_rule(*inputs)
    # In float64, and with another chunk length, so that the two computations take different steps.
    exact_o, exact_state = chunked_delta_rule(*(x.detach().double() for x in inputs), chunk=128)
    for found, exact in ((o, exact_o), (state, exact_state)):
        assert (found.double() - exact).norm() < 1e-3 * exact.norm()
    gradients = torch.autograd.grad(o.square().mean(), inputs)
    assert all(each.isfinite().all() for each in gradients)


@pytest.mark.parametrize("forgetting", [20.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strong_decays_keep_everything_finite(forgetting: float, dtype: torch.dtype) -> None:
    inputs = draw(4100, 2.0, forgetting, True, dtype)
    o, state = chunked_delta_rule(*inputs)
    gradients = torch.autograd.grad(o.float().sum() + state.sum(), [x for x in inputs if x is not None])
    assert all(each.isfinite().all() for each in (o, state, *gradients))


@pytest.mark.parametrize("similarity", [0.0, 3.0], ids=["random keys", "similar keys"])
@pytest.mark.parametrize("strongest", [1.0, 2.0])
@pytest.mark.parametrize("forgetting", [None, 0.05])
def test_bfloat16_is_close_to_the_recurrence(similarity: float, strongest: float, forgetting: float | None) -> None:
    torch.manual_seed(0)
    t = 1000
    q, v = l2_normalise(torch.randn(1, 2, t, 32)).bfloat16(), torch.randn(1, 2, t, 32).bfloat16()
    k = l2_normalise(torch.randn(1, 2, t, 32) + similarity * torch.randn(1, 2, 1, 32)).bfloat16()
    beta = strongest * torch.rand(1, 2, t)
    log_decay = None if forgetting is None else -forgetting * torch.rand(1, 2, t)
    o, state = chunked_delta_rule(q, k, v, beta, log_decay)
    expected_o, expected_state = recurrent_delta_rule(q.float(), k.float(), v.float(), beta, log_decay)
    assert o.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert (o.float() - expected_o).norm() < 0.05 * expected_o.norm()
    assert (state - expected_state).norm() < 0.05 * expected_state.norm()


def test_autocast_changes_nothing() -> None:
    inputs = draw(200, 1.0, 0.1, False, torch.bfloat16)
    expected = chunked_delta_rule(*inputs)
    with torch.autocast("cpu", torch.float16):
        found = chunked_delta_rule(*inputs)
    assert all(torch.equal(part, same) for part, same in zip(found, expected, strict=True))


def test_l2_normalise_in_bfloat16_and_at_zero() -> None:
    x = torch.randn(5, 64)
    torch.testing.assert_close(l2_normalise(x), F.normalize(x, dim=-1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(l2_normalise(x.bfloat16()), F.normalize(x.bfloat16().float(), dim=-1).bfloat16())
    zero = torch.zeros(1, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(l2_normalise(zero).sum(), zero)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("continued", [False, True])
def test_delta_rule_matches_flash_linear_attention(continued: bool) -> None:
    q, k, v, beta, _, state = draw(150, 1.0, None, continued, torch.float32)
    naive = reference("delta_rule/naive.py")
    expected, last = naive.delta_rule_recurrence(q, k, v, beta, initial_state=state)
    found, ours = chunked_delta_rule(as_mixers_scale(q), k, v, beta, None, state, chunk=48)
    torch.testing.assert_close(ours, last, rtol=1e-4, atol=1e-4)
    same(found, expected, q, k, v, beta)


@pytest.mark.parametrize("form", ["recurrent", "chunk"])
@pytest.mark.parametrize("forgetting", [0.1, 5.0])
def test_gated_delta_rule_matches_flash_linear_attention(form: str, forgetting: float) -> None:
    q, k, v, beta, log_decay, _ = draw(150, 2.0, forgetting, False, torch.float32)
    assert log_decay is not None
    naive = getattr(reference("gated_delta_rule/naive.py"), f"naive_{form}_gated_delta_rule")
    theirs = {name: x.transpose(1, 2) for name, x in zip(NAMES, (q, k, v, beta, log_decay), strict=True)}
    expected, last = naive(**theirs, output_final_state=True)
    found, ours = chunked_delta_rule(as_mixers_scale(q), k, v, beta, log_decay, chunk=48)
    torch.testing.assert_close(ours, last, rtol=1e-4, atol=1e-4)
    same(found.transpose(1, 2), expected, q, k, v, beta, log_decay)


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers comes with hybridlab[test]")
@pytest.mark.parametrize("continued", [False, True])
def test_gated_delta_rule_matches_transformers(continued: bool) -> None:
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

    q, k, v, beta, log_decay, state = draw(150, 1.0, 0.3, continued, torch.float32)
    assert log_decay is not None
    theirs = dict(zip(("query", "key", "value", "beta", "g"), (q, k, v, beta, log_decay), strict=True))
    theirs = {name: x.transpose(1, 2) for name, x in theirs.items()}
    expected, last = torch_chunk_gated_delta_rule(
        **theirs, initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=False
    )
    found, ours = chunked_delta_rule(as_mixers_scale(q), k, v, beta, log_decay, state)
    torch.testing.assert_close(ours, last, rtol=1e-4, atol=1e-4)
    same(found.transpose(1, 2), expected, q, k, v, beta, log_decay)


def as_mixers_scale(q: Tensor) -> Tensor:
    """Divide queries by the root of their width, as the mixers and the references' ops do."""
    return q * q.shape[-1] ** -0.5


NAMES = ("q", "k", "v", "beta", "g")


def draw(
    t: int, strongest: float, forgetting: float | None, continued: bool, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    torch.manual_seed(t)
    wide = torch.promote_types(dtype, torch.float32)
    q, k = (l2_normalise(torch.randn(2, 3, t, 6, dtype=dtype)).requires_grad_() for _ in range(2))
    v = torch.randn(2, 3, t, 4, dtype=dtype).requires_grad_()
    beta = (strongest * torch.rand(2, 3, t, dtype=wide)).requires_grad_()
    decay = None if forgetting is None else (-forgetting * torch.rand(2, 3, t, dtype=wide)).requires_grad_()
    state = torch.randn(2, 3, 6, 4, dtype=wide).requires_grad_() if continued else None
    return q, k, v, beta, decay, state
