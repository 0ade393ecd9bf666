"""Full attention with normalised queries and keys: initialisation, precision and decoding."""

import torch

from hybridlab.mixers.attention.full import Full
from tests.mixers.subject import in_chunks


def test_norms_of_queries_and_keys_take_no_decay_and_start_at_one() -> None:
    for name, parameter in Full(width=64, qk_norm=True).named_parameters():
        if "norm" in name:
            assert not parameter.takes_weight_decay  # type: ignore[attr-defined]
            assert not parameter.takes_initialisation  # type: ignore[attr-defined]
            assert torch.equal(parameter, torch.ones(16))


def test_queries_and_keys_are_normalised_in_half_precision_too() -> None:
    mixer, x = Full(width=64, qk_norm=True), 100 * torch.randn(2, 33, 64)
    expected = mixer(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mixer(x)
    pure = mixer.bfloat16()(x.bfloat16())
    for y in (mixed, pure):
        assert y.dtype == torch.bfloat16
        assert (y.float() - expected).norm() <= 0.05 * expected.norm()


@torch.no_grad()
def test_chunks_with_normalised_queries_and_keys_give_what_the_whole_gives() -> None:
    mixer, x = Full(width=64, qk_norm=True, kv_heads=2).double(), torch.randn(2, 40, 64, dtype=torch.float64)
    y, _ = in_chunks(mixer, x, [7, 1, 1, 31])
    torch.testing.assert_close(y, mixer(x), rtol=1e-9, atol=1e-9)
