"""The contract on sequences longer than every block, horizon and landmark block (slow)."""

import pytest
import torch

from tests.mixers.subject import Subject, in_chunks, tokens

LENGTH, CUT = 2600, 2300


@pytest.mark.slow
@torch.no_grad()
def test_long_sequences_keep_the_contract(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(1, LENGTH)
    y = mixer(x)
    changed = torch.cat([x[:, :CUT], tokens(1, LENGTH - CUT, seed=2)], dim=1)
    torch.testing.assert_close(mixer(changed)[:, :CUT], y[:, :CUT], rtol=1e-8, atol=1e-8)
    chunked, _ = in_chunks(mixer, x, [1700, 1, LENGTH - 1701])
    torch.testing.assert_close(chunked, y, rtol=1e-7, atol=1e-7)
