"""Products under decays per channel: joining halves against weighing each pair of tokens."""

import re

import pytest
import torch
from torch import Tensor

from hybridlab.ops.linear.channel_decay import channel_decay, check_chunk, dense_channel_decay, in_chunks


@pytest.mark.parametrize("strength", [0.0, 0.1, 5.0, 200.0])
@pytest.mark.parametrize(("r", "s"), [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("c", [1, 2, 8, 32])
def test_halves_are_the_pairs(c: int, r: int, s: int, strength: float) -> None:
    for safe in [1] if strength > 5 else [1, 2, 16, 64]:
        same(*inputs(c, r, s, strength), safe)


def same(rows: Tensor, columns: Tensor, log_decay: Tensor, safe: int) -> None:
    sought = [rows, columns, log_decay]
    found, wanted = channel_decay(*sought, safe), dense_channel_decay(*sought)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    into = [torch.randn_like(each) for each in wanted]
    gradients = (
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(each, into, strict=True)), sought)
        for each in (found, wanted)
    )
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("strength", [20.0, 1000.0])
def test_strong_decays_keep_everything_finite(strength: float) -> None:
    sought = [each.detach().float().requires_grad_() for each in inputs(64, 2, 1, strength)]
    found = channel_decay(*sought)
    gradients = torch.autograd.grad([each.sum() for each in found], sought)
    assert all(each.isfinite().all() for each in (*found, *gradients))


def test_a_strong_decay_costs_those_after_it_no_digits() -> None:
    # A sum over the chunk would be 20,000, with an error of 10^-3; the difference of two of those is a log decay here.
    rows, columns, log_decay = inputs(64, 1, 1, 0.01)
    with torch.no_grad():
        log_decay[..., 3, :] = -20000
    exact = dense_channel_decay(rows, columns, log_decay)
    found = channel_decay(rows.float(), columns.float(), log_decay.float())
    torch.testing.assert_close(found.scores.double(), exact.scores, rtol=1e-5, atol=1e-5)


def test_bounded_decays_are_safe_in_float32_up_to_the_bound() -> None:
    sought = [each.detach().float().requires_grad_() for each in inputs(64, 2, 2, 0.0)]
    with torch.no_grad():
        sought[2].fill_(-0.6065)
    found, wanted = channel_decay(*sought, 64), dense_channel_decay(*sought)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    gradients = (torch.autograd.grad([each.sum() for each in some], sought) for some in (found, wanted))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("t", "size", "number"), [(1, 1, 1), (3, 4, 1), (16, 16, 1), (17, 16, 2), (48, 16, 3)])
def test_chunks_are_powers_of_two(t: int, size: int, number: int) -> None:
    x = torch.randn(2, 3, t, 5)
    (cut,) = in_chunks(16, x)
    assert cut.shape == (2, 3, number, size, 5)
    assert torch.equal(cut.flatten(2, 3)[:, :, :t], x)
    assert cut.flatten(2, 3)[:, :, t:].abs().sum() == 0


@pytest.mark.parametrize("chunk", [0, -1, -8, 3, 48, True, 16.0])
def test_chunks_that_cannot_be_halved_are_refused(chunk: int) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'chunk={chunk}: a power of two is needed')}$"):
        check_chunk(chunk)


def inputs(c: int, r: int, s: int, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(c)
    rows, columns = torch.randn(2, 3, c, r, 5, dtype=torch.float64), torch.randn(2, 3, c, s, 5, dtype=torch.float64)
    log_decay = -strength * torch.rand(2, 3, c, 5, dtype=torch.float64)
    return rows.requires_grad_(), columns.requires_grad_(), log_decay.requires_grad_()
