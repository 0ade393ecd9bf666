"""The difference of two fused attentions against its weights written out."""

import pytest
import torch

from hybridlab.ops.attention.differential_attention import dense_differential_attention, differential_attention
from tests.ops.attention.test_sliding_attention import compared


@pytest.mark.parametrize(
    ("n", "past", "causal"), [(1, 0, True), (40, 0, True), (1, 30, True), (7, 30, True), (40, 0, False)]
)
@pytest.mark.parametrize("width", [3, 8])
def test_difference_matches_the_weights(width: int, n: int, past: int, causal: bool) -> None:
    torch.manual_seed(0)
    q = [torch.randn(2, 3, n, width, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    k = [torch.randn(2, 3, past + n, width, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    v = torch.randn(2, 3, past + n, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found, wanted = (
        attend(q, k, v, weight, causal=causal) for attend in (differential_attention, dense_differential_attention)
    )
    compared(found, wanted, *q, *k, v, weight)
