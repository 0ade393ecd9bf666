"""Full attention, both forms, with and without normalised queries and keys."""

import copy
from typing import Any

import pytest
import torch

from hybridlab.mixers.attention.full import Full
from tests.mixers.agree import WIDTH
from tests.mixers.masked_attention import BOTH, agrees
from tests.mixers.subject import in_chunks


@BOTH
@pytest.mark.parametrize("t", [1, 9, 70])
@pytest.mark.parametrize(
    "settings", [{}, {"kv_heads": 1}, {"qk_norm": True}, {"qk_norm": True, "kv_heads": 2, "rope": None}], ids=str
)
def test_full(settings: dict[str, Any], t: int, causal: bool) -> None:
    agrees(Full(width=WIDTH, causal=causal, **settings), lambda _, i, j: j <= i or not causal, t)


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


def test_attention_of_qwen3() -> None:
    modeling = pytest.importorskip("transformers.models.qwen3.modeling_qwen3")
    config = modeling.Qwen3Config(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, attn_implementation="eager"
    )
    torch.manual_seed(0)
    theirs = modeling.Qwen3Attention(config, layer_idx=0).eval()
    ours = Full(width=64, kv_heads=2, qk_norm=True, rope=config.rope_parameters["rope_theta"])
    pairs = {
        "query.weight": theirs.q_proj.weight,
        "key.weight": theirs.k_proj.weight,
        "value.weight": theirs.v_proj.weight,
        "query_norm.scale": torch.nn.init.uniform_(theirs.q_norm.weight, 0.5, 2),
        "key_norm.scale": torch.nn.init.uniform_(theirs.k_norm.weight, 0.5, 2),
    }
    ours.projections.load_state_dict(copy.deepcopy(pairs))
    ours.out.load_state_dict(theirs.o_proj.state_dict())
    x = torch.randn(2, 50, 64)
    turns = modeling.Qwen3RotaryEmbedding(config)(x, torch.arange(50)[None])
    ahead = torch.full((50, 50), -torch.inf).triu(1)
    expected, _ = theirs(x, turns, ahead)
    torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)
