"""The contract in rows longer than every block, horizon and number of landmarks times its block: slow."""

import pytest
import torch

from tests.mixers.subject import Subject, in_chunks, tokens

LENGTH, CUT = 2600, 2300


@pytest.mark.slow
@torch.no_grad()
def test_a_long_row_keeps_the_promises_of_a_short_one(causal_subject: Subject) -> None:
    mixer, x = causal_subject.build(), tokens(1, LENGTH)
    y = mixer(x)
    changed = torch.cat([x[:, :CUT], tokens(1, LENGTH - CUT, seed=2)], dim=1)
    torch.testing.assert_close(mixer(changed)[:, :CUT], y[:, :CUT], rtol=1e-8, atol=1e-8)
    pieces, _ = in_chunks(mixer, x, [1700, 1, LENGTH - 1701])
    torch.testing.assert_close(pieces, y, rtol=1e-7, atol=1e-7)
