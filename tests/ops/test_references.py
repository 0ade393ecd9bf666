"""Ops against the naive references of flash-linear-attention, loaded by file, so that no GPU or
Triton is needed."""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from hybridlab.ops.linear.linear_attention import chunked_linear_attention


def reference(file: str) -> ModuleType:
    try:
        path = distribution("fla-core").locate_file(f"fla/ops/{file}")
    except PackageNotFoundError:
        pytest.skip("fla-core is not installed: it comes with hybridlab[test]")
    spec = importlib.util.spec_from_file_location(f"reference_{file.split('/')[0]}", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("normalised", [False, True])
def test_linear_attention(normalised: bool) -> None:
    q, k, v = (F.elu(x) + 1 for x in torch.randn(3, 2, 128, 4, 8))
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    expected = reference("linear_attn/naive.py").naive_chunk_linear_attn(q, k, v, scale=1.0, normalize=normalised)
    ones = F.pad(v.transpose(1, 2), (0, 1), value=1.0)
    o, _ = chunked_linear_attention(q.transpose(1, 2), k.transpose(1, 2), ones, chunk=32)
    found = o[..., :-1] / o[..., -1:] if normalised else o[..., :-1]
    same(found.transpose(1, 2), expected, q, k, v)


def test_decayed_linear_attention() -> None:
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 2, 150, 4, 8))
    g = F.logsigmoid(torch.randn(2, 150, 4)).requires_grad_()
    naive = reference("simple_gla/naive.py")
    expected, state = naive.naive_chunk_simple_gla(q, k, v, g, scale=1.0, output_final_state=True)
    found, last = chunked_linear_attention(*(x.transpose(1, 2) for x in (q, k, v, g)), chunk=48)
    torch.testing.assert_close(last, state, rtol=1e-4, atol=1e-4)
    same(found.transpose(1, 2), expected, q, k, v, g)


def same(found: torch.Tensor, expected: torch.Tensor, *inputs: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    into = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, into), torch.autograd.grad(expected, inputs, into), rtol=1e-3, atol=1e-3
    )


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
