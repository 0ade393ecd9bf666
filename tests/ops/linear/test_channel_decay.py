"""Scores under a decay per channel: merged blocks against the weights of all pairs of tokens."""

import pytest
import torch
from torch import Tensor

from hybridlab.ops.linear.channel_decay import channel_decay, dense_channel_decay, split_power_of_two_chunks


@pytest.mark.parametrize("strength", [0.0, 0.1, 5.0, 200.0])
@pytest.mark.parametrize(("r", "s"), [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("c", [1, 2, 8, 32])
def test_merged_halves_match_all_pairs(c: int, r: int, s: int, strength: float) -> None:
    for safe_block in [1] if strength > 5 else [1, 2, 16, 64]:
        same(*inputs(c, r, s, strength), safe_block)


def same(queries: Tensor, keys: Tensor, log_decay: Tensor, safe_block: int) -> None:
    variables = [queries, keys, log_decay]
    found, expected = channel_decay(*variables, safe_block), dense_channel_decay(*variables)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    grad_outputs = [torch.randn_like(each) for each in expected]
    gradients = (
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(each, grad_outputs, strict=True)), variables)
        for each in (found, expected)
    )
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("strength", [20.0, 1000.0])
def test_strong_decays_keep_everything_finite(strength: float) -> None:
    variables = [each.detach().float().requires_grad_() for each in inputs(64, 2, 1, strength)]
    found = channel_decay(*variables)
    gradients = torch.autograd.grad([each.sum() for each in found], variables)
    assert all(each.isfinite().all() for each in (*found, *gradients))


def test_a_strong_decay_does_not_cost_later_tokens_precision() -> None:
    # A cumulative sum over the chunk would be about 20,000, with an error of 10^-3. Small log
    # decays would be differences of two such sums.
    queries, keys, log_decay = inputs(64, 1, 1, 0.01)
    with torch.no_grad():
        log_decay[..., 3, :] = -20000
    expected = dense_channel_decay(queries, keys, log_decay)
    found = channel_decay(queries.float(), keys.float(), log_decay.float())
    torch.testing.assert_close(found.scores.double(), expected.scores, rtol=1e-5, atol=1e-5)


def test_bounded_decays_are_safe_in_float32_up_to_the_bound() -> None:
    variables = [each.detach().float().requires_grad_() for each in inputs(64, 2, 2, 0.0)]
    with torch.no_grad():
        variables[2].fill_(-0.6065)
    found, expected = channel_decay(*variables, 64), dense_channel_decay(*variables)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    gradients = (torch.autograd.grad([each.sum() for each in result], variables) for result in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("t", "size", "number"), [(1, 1, 1), (3, 4, 1), (16, 16, 1), (17, 16, 2), (48, 16, 3)])
def test_chunks_are_powers_of_two(t: int, size: int, number: int) -> None:
    x = torch.randn(2, 3, t, 5)
    (chunks,) = split_power_of_two_chunks(16, x)
    assert chunks.shape == (2, 3, number, size, 5)
    assert torch.equal(chunks.flatten(2, 3)[:, :, :t], x)
    assert chunks.flatten(2, 3)[:, :, t:].abs().sum() == 0


def inputs(c: int, r: int, s: int, strength: float) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(c)
    queries, keys = torch.randn(2, 3, c, r, 5, dtype=torch.float64), torch.randn(2, 3, c, s, 5, dtype=torch.float64)
    log_decay = -strength * torch.rand(2, 3, c, 5, dtype=torch.float64)
    return queries.requires_grad_(), keys.requires_grad_(), log_decay.requires_grad_()
