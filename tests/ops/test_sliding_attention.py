"""Sliding attention in blocks against one dense mask."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hybridlab.ops.sliding_attention import dense_sliding_attention, sliding_attention


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 300),
    past=st.sampled_from([0, 1, 10, 63, 64, 65, 200]),
    window=st.one_of(st.integers(1, 130), st.sampled_from([500])),
    sharing=st.integers(1, 3),
)
def test_blocks_are_the_dense_mask(n: int, past: int, window: int, sharing: int) -> None:
    torch.manual_seed(n)
    q = torch.randn(2, 2 * sharing, n, 4, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(2, 2, past + n, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found, wanted = sliding_attention(q, k, v, window), dense_sliding_attention(q, k, v, window)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, (q, k, v), into), torch.autograd.grad(wanted, (q, k, v), into), rtol=1e-9, atol=1e-9
    )


def test_nothing_grows_faster_than_the_row() -> None:
    largest = {}
    for t in (1024, 4096):
        x = torch.empty(1, 2, t, 16, device="meta", requires_grad=True)
        with LargestTensor() as seen:
            sliding_attention(x, x, x, 64).sum().backward()
        largest[t] = seen.numel
    assert largest[4096] <= 4.2 * largest[1024]


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, torch.Tensor):
                self.numel = max(self.numel, each.numel())
        return result
