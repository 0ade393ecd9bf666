"""The linear family against the naive references of flash-linear-attention, which put heads before
time."""

import pytest
import torch
from torch.nn import functional as F

from hybridlab.mixers.linear.retention import log_decays
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.ops.linear.normalised_attention import chunked_normalised_attention
from hybridlab.ops.linear.taylor_attention import chunked_taylor_attention
from tests.ops.test_references import reference, same


def test_normalised_linear_attention() -> None:
    q, k, v = (x.requires_grad_() for x in _softplus_of_two(torch.randn(3, 2, 4, 100, 8)))
    expected, expected_state = reference("linear_attn/naive.py").naive_recurrent_linear_attn(
        *(x.transpose(1, 2) for x in (q, k, v)),
        scale=1.0,
        initial_state=(torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 4, 8)),
        output_final_state=True,
        normalize=True,
    )
    found, state = chunked_normalised_attention(q, k, v, chunk=48)
    torch.testing.assert_close(state[..., :-1], expected_state[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(state[..., -1], expected_state[1][:, 0], rtol=1e-4, atol=1e-4)
    same(found, expected.transpose(1, 2), q, k, v)


@pytest.mark.parametrize("form", ["naive_parallel_based", "naive_chunk_based"])
def test_based(form: str) -> None:
    q, k = torch.randn(2, 2, 4, 256, 16)
    q, k, v = (x.requires_grad_() for x in (q, k, torch.randn(2, 4, 256, 8)))
    expected = getattr(reference("based/naive.py"), form)(q, k, v)
    found, _ = chunked_taylor_attention(q, k, v, chunk=48)
    same(found, expected, q, k, v)


def test_rebased() -> None:
    """The features of ReBased are the squares among those of Based."""
    q, k = torch.randn(2, 2, 4, 100, 6)
    q, k, v = (x.requires_grad_() for x in (q, k, torch.randn(2, 4, 100, 8)))
    expected = reference("rebased/naive.py").naive_parallel_rebased(q, k, v)
    squares = ((x[..., :, None] * x[..., None, :]).flatten(-2) / 6**0.5 for x in (q, k))
    found, _ = chunked_normalised_attention(*squares, v, chunk=48)
    # The weight of a single token can be as small as the reference's 1e-6.
    torch.testing.assert_close(found[:, :, 8:], expected[:, :, 8:], rtol=1e-3, atol=1e-3)
    into = torch.randn_like(expected[:, :, 8:])
    found_gradients, wanted = (torch.autograd.grad(o[:, :, 8:], (q, k, v), into) for o in (found, expected))
    torch.testing.assert_close(found_gradients, wanted, rtol=1e-2, atol=1e-2)


def test_retention() -> None:
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 2, 4, 150, 8))
    expected = reference("retention/naive.py").naive_retention(q, k, v)
    log_decay = log_decays(4, torch.float32, q.device)[None, :, None].expand(2, 4, 150)
    found, _ = chunked_linear_attention(q * 8**-0.5, k, v, log_decay, chunk=48)
    same(found, expected, q, k, v)


def _softplus_of_two(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([F.softplus(x[0]), F.softplus(x[1]), x[2]])


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
