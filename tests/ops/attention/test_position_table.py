"""Table rows for any length: gathered pairs of rows against a matrix of hat functions."""

import pytest
import torch

from hybridlab.ops.attention.position_table import dense_position_rows, position_rows


@pytest.mark.parametrize("length", [1, 2, 7, 40])
@pytest.mark.parametrize("t", [1, 2, 7, 8, 13, 40, 41, 97, 400])
def test_gathered_rows_match_the_hat_functions(length: int, t: int) -> None:
    torch.manual_seed(t)
    table = torch.randn(length, 3, dtype=torch.float64, requires_grad=True)
    found, wanted = position_rows(table, t), dense_position_rows(table, t)
    assert found.shape == (t, 3)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    into = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, table, into), torch.autograd.grad(wanted, table, into), rtol=1e-10, atol=1e-10
    )


def test_a_table_is_stretched_linearly_and_keeps_its_integral() -> None:
    table = torch.tensor([[0.0, 1.0], [4.0, 1.0]], dtype=torch.float64)
    # The centres of four positions lie at -1/4 (the first row), 1/4, 3/4 and 5/4 (the last row) of
    # the table.
    expected = torch.tensor([[0.0, 0.5], [0.5, 0.5], [1.5, 0.5], [2.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(position_rows(table, 4), expected)
    long = torch.ones(512, 1, dtype=torch.float64)
    assert position_rows(long, 100_003).sum().item() == pytest.approx(512)


def test_shorter_sequences_use_the_first_positions() -> None:
    table = torch.randn(9, 2)
    assert torch.equal(position_rows(table, 5), table[:5])
    assert torch.equal(position_rows(table, 9), table)
