"""The choice of blocks: the same in chunks as in one call, and never an unfinished block."""

import pytest
import torch

from hybridlab.ops.attention import block_choice
from hybridlab.ops.attention.block_choice import choice_by_mean, dense_choice_by_mean, top_blocks, top_by_search


@pytest.mark.parametrize("chunk", [1, 13, 4096])
@pytest.mark.parametrize("past", [0, 5, 8, 30])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_chunks_choose_the_same_blocks(monkeypatch: pytest.MonkeyPatch, chunk: int, past: int, count: int) -> None:
    monkeypatch.setattr(block_choice, "QUERY_CHUNK", chunk)
    torch.manual_seed(count)
    q = torch.randn(2, 4, 45, 6, dtype=torch.float64)
    means = torch.randn(2, 2, (past + 45) // 8, 6, dtype=torch.float64)
    found, wanted = (choose(q, means, past, 8, count) for choose in (choice_by_mean, dense_choice_by_mean))
    assert found.shape == (2, 4, 45, count)
    assert torch.equal(found, wanted)


def test_future_blocks_are_never_chosen() -> None:
    q, means = torch.randn(2, 4, 80, 6), torch.randn(2, 4, 10, 6)
    chosen = choice_by_mean(q, means, 0, 8, 3)
    own = torch.arange(80)[:, None] // 8
    assert (chosen < own).all()
    assert ((chosen >= 0).sum(-1) == own.squeeze(-1).clamp(max=3)).all()


def test_top_blocks_have_the_greatest_scores() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 9.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    allowed = torch.tensor([[True, True, True, False], [False, True, False, False], [False] * 4])
    assert top_blocks(scores, allowed, 2).tolist() == [[0, 2], [1, -1], [-1, -1]]
    assert top_blocks(scores[:, :1], allowed[:, :1], 2).tolist() == [[0, -1], [-1, -1], [-1, -1]]


def test_search_finds_what_topk_finds() -> None:
    torch.manual_seed(0)
    scores = torch.randn(3, 50, 20)
    for found, wanted in zip(top_by_search(scores, 4), scores.topk(4), strict=True):
        assert torch.equal(found, wanted)
