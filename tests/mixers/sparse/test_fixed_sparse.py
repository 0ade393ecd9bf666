"""Mixers with a fixed attention pattern, each against attention under an explicit mask."""

import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.base import Mixer, state_bytes
from hybridlab.mixers.sparse.bigbird import Bigbird
from hybridlab.mixers.sparse.dilated import Dilated
from hybridlab.mixers.sparse.sliding import Sliding
from hybridlab.mixers.sparse.strided import Strided
from tests.mixers.agree import WIDTH
from tests.mixers.masked_attention import BOTH, agrees
from tests.mixers.subject import in_chunks


@BOTH
@pytest.mark.parametrize("t", [1, 9, 65, 150])
@pytest.mark.parametrize(
    "settings",
    [
        {"window": 1},
        {"window": 5, "global_tokens": 1},
        {"window": 5, "global_tokens": 3, "kv_heads": 2, "qk_norm": True},
        {"window": 40, "global_tokens": 30, "rope": None},
        {"window": 300, "global_tokens": 2},
    ],
    ids=str,
)
def test_sliding(settings: dict[str, Any], t: int, causal: bool) -> None:
    window, first = settings["window"], settings.get("global_tokens", 0)

    def sees(_: int, i: int, j: int) -> bool:
        if causal:
            return j <= i and (i - j < window or j < first)
        return abs(i - j) < window or j < first or i < first

    agrees(Sliding(width=WIDTH, causal=causal, **settings), sees, t)


@BOTH
@pytest.mark.parametrize("t", [1, 9, 65, 150])
@pytest.mark.parametrize(
    "settings",
    [
        {"window": 1, "dilation": 3},
        {"window": 5, "dilation": 1},
        {"window": 5, "dilation": 4, "kv_heads": 2, "qk_norm": True},
        {"window": 20, "dilation": 7, "rope": None},
        {"window": 3, "dilation": 100},
    ],
    ids=str,
)
def test_dilated(settings: dict[str, Any], t: int, causal: bool) -> None:
    window, dilation = settings["window"], settings["dilation"]

    def sees(_: int, i: int, j: int) -> bool:
        ahead = {i + step * dilation for step in range(window)}
        behind = {i - step * dilation for step in range(window)}
        return j in (behind if causal else behind | ahead)

    agrees(Dilated(width=WIDTH, causal=causal, **settings), sees, t)


@BOTH
@pytest.mark.parametrize("t", [1, 9, 65, 150])
@pytest.mark.parametrize(
    "settings",
    [{"stride": 1}, {"stride": 5}, {"stride": 16, "kv_heads": 2, "qk_norm": True}, {"stride": 80, "rope": None}],
    ids=str,
)
def test_strided(settings: dict[str, Any], t: int, causal: bool) -> None:
    stride = settings["stride"]

    def sees(_: int, i: int, j: int) -> bool:
        return (abs(i - j) < stride or (i - j) % stride == 0) and (j <= i or not causal)

    agrees(Strided(width=WIDTH, causal=causal, **settings), sees, t)


@BOTH
@pytest.mark.parametrize("t", [1, 9, 65, 150])
@pytest.mark.parametrize(
    "settings",
    [
        {"block": 1, "seed": 0},
        {"block": 8, "seed": 5, "random_blocks": 2},
        {"block": 5, "seed": 2**32 - 1, "window_blocks": 1, "global_blocks": 1, "kv_heads": 2, "qk_norm": True},
        {"block": 7, "seed": 3, "window_blocks": 4, "global_blocks": 3, "random_blocks": 5, "rope": None},
        {"block": 64, "seed": 1},
    ],
    ids=str,
)
def test_bigbird(settings: dict[str, Any], t: int, causal: bool) -> None:
    sizes = {"window_blocks": 2, "global_blocks": 2, "random_blocks": 3, **settings}
    block, near, first = sizes["block"], sizes["window_blocks"], sizes["global_blocks"]
    chosen = {}
    for head in range(4):
        for own in range(-(-t // block)):
            last = own - near + 1 if causal else t // block
            candidates = [m for m in range(first, last) if abs(m - own) >= near]
            drawn = floyd(sizes["seed"], head, own, len(candidates), sizes["random_blocks"])
            chosen[head, own] = {candidates[number] for number in drawn}
            assert len(chosen[head, own]) == min(sizes["random_blocks"], len(candidates))

    def sees(head: int, i: int, j: int) -> bool:
        own, other = i // block, j // block
        linked = abs(own - other) < near or other < first or other in chosen[head, own]
        return linked and j <= i if causal else linked or own < first

    agrees(Bigbird(width=WIDTH, causal=causal, **settings), sees, t)


def floyd(seed: int, head: int, block: int, count: int, num: int) -> set[int]:
    """Draw a set of numbers below `count`, in Python's own whole numbers."""
    drawn: set[int] = set()
    for i in range(num):
        largest = count - num + i
        if largest >= 0:
            number = scrambled(scrambled(scrambled(seed ^ head) ^ block) ^ i) % (largest + 1)
            drawn.add(largest if number in drawn else number)
    return drawn


def scrambled(x: int) -> int:
    x = (x + 0x9E3779B9) % 2**32
    x = (x ^ x >> 16) * 0x45D9F3B % 2**32
    x = (x ^ x >> 16) * 0x45D9F3B % 2**32
    return x ^ x >> 16


@pytest.mark.parametrize(
    ("mixer", "most"),
    [(Sliding(width=64, window=20, global_tokens=3), 22), (Dilated(width=64, window=6, dilation=5), 25)],
    ids=["sliding with global tokens", "dilated"],
)
@torch.no_grad()
def test_chunks_give_what_the_whole_gives_within_a_bounded_state(mixer: Mixer, most: int) -> None:
    torch.manual_seed(0)
    mixer, x = mixer.double(), torch.randn(2, 130, 64, dtype=torch.float64)
    for sizes in ([1] * 130, [2, 1, 30, 1, 50, 46], [22, 23, 85], [130]):
        y, state = in_chunks(mixer, x, sizes)
        torch.testing.assert_close(y, mixer(x), rtol=1e-9, atol=1e-9)
        assert state.keys.shape[2] == most
        assert state_bytes(state) == 2 * 2 * most * 64 * 8 + 2 * 8


@torch.no_grad()
def test_bigbird_sees_the_same_blocks_at_any_length() -> None:
    mixer = Bigbird(width=64, block=4, seed=9).double()
    x = torch.randn(1, 200, 64, dtype=torch.float64)
    for t in (1, 50, 101, 199):
        torch.testing.assert_close(mixer(x[:, :t]), mixer(x)[:, :t], rtol=1e-9, atol=1e-9)


def test_bigbird_draws_its_seed_once_and_saves_it() -> None:
    torch.manual_seed(0)
    first, second = Bigbird(width=64), Bigbird(width=64)
    torch.manual_seed(0)
    assert torch.equal(first.seed, Bigbird(width=64).seed)
    assert not torch.equal(first.seed, second.seed)
    assert "seed" in first.state_dict()
    assert Bigbird(width=64, seed=7).seed.item() == 7


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Sliding, {"global_tokens": -1}, "global_tokens=-1: must be a whole number of at least 0"),
        (Dilated, {"dilation": 0}, "dilation=0: must be a whole number of at least 1"),
        (Dilated, {"window": 0}, "window=0: must be a whole number of at least 1"),
        (Strided, {"stride": 0}, "stride=0: must be a whole number of at least 1"),
        (Bigbird, {"random_blocks": 0}, "random_blocks=0: must be a whole number of at least 1"),
        (Bigbird, {"seed": -1}, "seed=-1: must be a whole number from 0 to 4294967295, or null: drawn"),
        (
            Bigbird,
            {"seed": 2**32},
            "seed=4294967296: must be a whole number from 0 to 4294967295, or null: drawn",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=64, **settings)


@pytest.mark.parametrize("global_tokens", [0, 3])
def test_attention_of_longformer(global_tokens: int) -> None:
    modeling = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    config = modeling.LongformerConfig(hidden_size=64, num_attention_heads=4, attention_window=[16])
    torch.manual_seed(0)
    theirs = modeling.LongformerSelfAttention(config, layer_id=0).eval()
    ours = Sliding(width=64, window=9, global_tokens=global_tokens, rope=None, causal=False)
    ours.out = torch.nn.Identity()  # type: ignore[assignment]
    for name in ("query", "key", "value"):
        local = getattr(theirs, name)
        torch.nn.init.zeros_(local.bias)
        getattr(theirs, f"{name}_global").load_state_dict(local.state_dict())
        getattr(ours.projections, name).weight = local.weight
    x, globally = torch.randn(2, 64, 64), (torch.arange(64) < global_tokens).expand(2, -1)
    (expected,) = theirs(
        x,
        attention_mask=10000.0 * globally,
        is_index_masked=torch.zeros(2, 64, dtype=torch.bool),
        is_index_global_attn=globally,
        is_global_attn=global_tokens > 0,
    )
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)
