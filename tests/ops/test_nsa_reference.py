"""Native sparse attention against the naive references of flash-linear-attention, which are loaded
by file."""

import importlib.util
import sys
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

import pytest
import torch
from torch import Tensor

from hybridlab.ops.attention.block_attention import block_attention
from hybridlab.ops.attention.compressed_attention import choice_by_importance, compressed_attention

T, BLOCK, SELECTED = 90, 8, 5
BLOCKS = 12  # the last of them is not full
SCALE = 6**-0.5


@pytest.fixture
def naive(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    try:
        path = distribution("fla-core").locate_file("fla/ops/nsa/naive.py")
    except PackageNotFoundError:
        pytest.skip("fla-core is not installed: it comes with hybridlab[test]")
    # The file imports two helpers that need Triton; the functions tested here do not call them.
    for name, helper in (("fla.ops.utils", "prepare_chunk_offsets"), ("fla.ops.utils.pooling", "mean_pooling")):
        stand_in = ModuleType(name)
        setattr(stand_in, helper, None)
        monkeypatch.setitem(sys.modules, name, stand_in)
    spec = importlib.util.spec_from_file_location("reference_nsa", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Flash Attention is not installed", ImportWarning)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_compression(naive: ModuleType, kv_heads: int) -> None:
    q, k, v = tensors(kv_heads, BLOCKS)
    expected, _ = naive.naive_nsa_compression(*last(q, k, v), BLOCK, SCALE)
    same(compressed_attention(q, k, v, 0, BLOCK, BLOCK), expected, q, k, v)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_choice(naive: ModuleType, kv_heads: int) -> None:
    q, k, _ = tensors(kv_heads, BLOCKS)
    expected = naive.naive_nsa_topk(*last(q, k), SELECTED, BLOCK, SCALE)
    chosen = choice_by_importance(q, k, 0, BLOCK, BLOCK, BLOCK, 2, SELECTED - 3)
    for i in range(T):
        fixed = {0, i // BLOCK, max(i // BLOCK - 1, 0)}
        for sequence in range(2):
            for group in range(kv_heads):
                found = fixed | set(chosen[sequence, group, i].tolist()) - {-1}
                assert found == set(expected[sequence, i, group].tolist()) - {-1}


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_selection(naive: ModuleType, kv_heads: int) -> None:
    q, k, v = tensors(kv_heads, T)
    compressed = torch.randn(2, kv_heads, BLOCKS, 6)
    indices = naive.naive_nsa_topk(*last(q, compressed), SELECTED, BLOCK, SCALE)
    expected = naive.naive_nsa_selection(*last(q, k, v), indices, BLOCK)
    chosen = choice_by_importance(q, compressed, 0, BLOCK, BLOCK, BLOCK, 2, SELECTED - 3)
    same(block_attention(q, k, v, chosen, BLOCK, local=2, first=True), expected, q, k, v)


def tensors(kv_heads: int, length: int) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(2, 4, T, 6), (2, kv_heads, length, 6), (2, kv_heads, length, 6)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def last(*heads_first: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in heads_first]


def same(found: Tensor, expected: Tensor, *inputs: Tensor) -> None:
    found = found.transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    into = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, into), torch.autograd.grad(expected, inputs, into), rtol=1e-4, atol=1e-5
    )
