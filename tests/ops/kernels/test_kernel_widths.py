"""Padding and splitting of vectors for kernels, tested with the PyTorch forms in place of
kernels."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops.kernels.padding import (
    MAX_WIDTH,
    kernel_width,
    merge_width,
    split_over_keys,
    split_over_values,
    split_width,
)
from hybridlab.ops.linear.delta_rule import chunked_delta_rule, l2_normalise
from hybridlab.ops.linear.gated_linear_attention import chunked_gated_linear_attention
from hybridlab.ops.linear.linear_attention import chunked_linear_attention


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("decays", ["nothing", "heads", "channels"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("width", [16, 128, 129, 300])
def test_splitting_keys_does_not_change_the_result(width: int, groups: int, decays: str, continued: bool) -> None:
    torch.manual_seed(0)
    if decays == "channels":
        groups = 4  # each head has its own keys
    q, k = torch.randn(2, 2, groups, 70, width, dtype=torch.float64)
    v = torch.randn(2, 4, 70, 5, dtype=torch.float64)
    log_decay = {
        "nothing": None,
        "heads": -torch.rand(2, 4, 70, dtype=torch.float64),
        "channels": -torch.rand(2, 4, 70, width, dtype=torch.float64),
    }[decays]
    state = torch.randn(2, 4, width, 5, dtype=torch.float64) if continued else None
    op = chunked_gated_linear_attention if decays == "channels" else chunked_linear_attention
    widths: list[int] = []

    def attend(q: Tensor, k: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
        widths.append(k.shape[-1])
        return op(q, k, *rest)  # type: ignore[arg-type]

    found = split_over_keys(attend, q, k, v, log_decay, state)
    torch.testing.assert_close(found, op(q, k, v, log_decay, state), rtol=1e-9, atol=1e-9)  # type: ignore[arg-type]
    assert max(widths) <= MAX_WIDTH


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("decays", [False, True])
@pytest.mark.parametrize("width", [16, 129, 300])
def test_splitting_values_does_not_change_the_result(width: int, decays: bool, continued: bool) -> None:
    torch.manual_seed(0)
    q, k = l2_normalise(torch.randn(2, 2, 3, 70, 8, dtype=torch.float64))
    v, beta = torch.randn(2, 3, 70, width, dtype=torch.float64), torch.rand(2, 3, 70, dtype=torch.float64)
    log_decay = -torch.rand(2, 3, 70, dtype=torch.float64) if decays else None
    state = torch.randn(2, 3, 8, width, dtype=torch.float64) if continued else None
    widths: list[int] = []

    def attend(
        v: Tensor, state: Tensor | None, q: Tensor, k: Tensor, beta: Tensor, log_decay: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        widths.append(v.shape[-1])
        return chunked_delta_rule(q, k, v, beta, log_decay, state)

    found = split_over_values(attend, v, state, q, k, beta, log_decay)
    expected = chunked_delta_rule(q, k, v, beta, log_decay, state)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert max(widths) <= MAX_WIDTH


def test_merge_width_undoes_split_width() -> None:
    x = torch.randn(2, 3, 5, 7, 10)
    assert split_width(x, 4).shape == (2, 12, 5, 7, 3)
    assert torch.equal(merge_width(split_width(x, 4), 4, 10), x)


@pytest.mark.parametrize(("width", "wanted"), [(1, 16), (16, 16), (17, 32), (48, 64), (96, 128), (128, 128)])
def test_a_width_is_padded_to_a_power_of_two(width: int, wanted: int) -> None:
    assert kernel_width(width) == wanted
