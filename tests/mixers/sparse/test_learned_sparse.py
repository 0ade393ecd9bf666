"""Mixers whose tokens choose what they see: causality of the choice, states and bad values."""

import re
from typing import Any

import pytest
import torch

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.sparse.moba import Moba
from hybridlab.mixers.sparse.nsa import Nsa
from hybridlab.mixers.sparse.routing import Routing
from tests.mixers.subject import in_chunks

WIDTH = 32


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Moba, {"heads": 5}, "heads=5: must divide the width, 64"),
        (Moba, {"kv_heads": 3}, "kv_heads=3: must divide heads, 4"),
        (Moba, {"top_k": 0}, "top_k=0: must be a whole number of at least 1"),
        (Moba, {"rope": 0.0}, "rope=0.0: must be a number above 0, or null: no positions"),
        (Nsa, {"kv_heads": 3}, "kv_heads=3: must divide heads, 4"),
        (Nsa, {"window": 0}, "window=0: must be a whole number of at least 1"),
        (
            Nsa,
            {"compress_stride": 12},
            "compress_stride=12: must divide compress_block, 32",
        ),
        (Nsa, {"compress_block": 128}, "compress_block=128: must be a whole number from 1 to 64"),
        (Nsa, {"top_k": 2}, "top_k=2: must be a whole number of at least 3"),
        (Routing, {"clusters": 0}, "clusters=0: must be a whole number of at least 2"),
        (Routing, {"clusters": 1}, "clusters=1: must be a whole number of at least 2"),
        (Routing, {"heads": 3}, "heads=3: must divide the width, 64"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=64, **settings)


SMALL = [
    lambda: Moba(width=WIDTH, block=4, top_k=3),
    lambda: Nsa(width=WIDTH, compress_block=4, compress_stride=2, select_block=4, top_k=4, window=5),
    lambda: Routing(width=WIDTH, clusters=3, window=4),
]


@pytest.mark.parametrize("build", SMALL, ids=["moba", "nsa", "routing"])
@torch.no_grad()
def test_a_choice_among_many_does_not_depend_on_the_future(build: Any) -> None:
    torch.manual_seed(0)
    mixer, x = build().double(), torch.randn(1, 120, WIDTH, dtype=torch.float64)
    y = mixer(x)
    for cut in range(1, 120, 7):
        other = torch.cat([x[:, :cut], 5 * torch.randn(1, 120 - cut, WIDTH, dtype=torch.float64)], dim=1)
        torch.testing.assert_close(mixer(other)[:, :cut], y[:, :cut], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(mixer(x[:, :cut]), y[:, :cut], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("build", SMALL, ids=["moba", "nsa", "routing"])
@pytest.mark.parametrize("sizes", [[1] * 120, [3, 5, 1, 70, 1, 1, 39], [119, 1], [65, 55]], ids=len)
@torch.no_grad()
def test_chunks_choose_what_the_whole_chooses(build: Any, sizes: list[int]) -> None:
    torch.manual_seed(0)
    mixer, x = build().double(), torch.randn(2, 120, WIDTH, dtype=torch.float64)
    y, _ = in_chunks(mixer, x, sizes)
    torch.testing.assert_close(y, mixer(x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_routing_does_not_jump_where_a_token_changes_its_cluster() -> None:
    torch.manual_seed(0)
    mixer = Routing(width=WIDTH, clusters=4, window=60).double()
    start, end = torch.randn(2, 1, 60, WIDTH, dtype=torch.float64)
    # Many tokens change their cluster on the way, and each step is as small as the way is long.
    steps = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None, None]
    y = mixer(start + 0.01 * steps * (end - start))
    clusters = mixer._project(start + 0.01 * steps * (end - start), 0)[-1]
    assert (clusters[1:] != clusters[:-1]).any()
    jumps = (y[1:] - y[:-1]).abs().amax((1, 2))
    assert jumps.max() < 20 * jumps.median()


def test_routing_starts_with_centroids_that_keep_their_initialisation_and_do_not_decay() -> None:
    centroids = Routing(width=256).centroids
    assert centroids.shape == (4, 16, 64)
    assert centroids.std().item() == pytest.approx(1, abs=0.05)
    assert (centroids.takes_weight_decay, centroids.takes_initialisation) == (False, False)  # type: ignore[attr-defined]


def test_nsa_starts_with_blocks_compressed_around_their_mean() -> None:
    mixer = Nsa(width=64)
    x = torch.randn(2, 1, 80, 16)
    for compression in (mixer.key_compression, mixer.value_compression):
        torch.nn.init.zeros_(compression.outer.weight)
        torch.testing.assert_close(compression(x)[:, :, 1], x[:, :, 16:48].mean(2))
        assert not compression.weight.takes_initialisation  # type: ignore[attr-defined]


def test_nsa_state_keeps_only_the_tokens_of_blocks_to_come() -> None:
    mixer = Nsa(width=64, window=256)
    for t in (1, 31, 32, 47, 48, 100, 300):
        _, state = in_chunks(mixer, torch.randn(1, t, 64), [t])
        blocks = max((t - 32) // 16 + 1, 0)
        assert state.compressed_keys.shape[2] == blocks
        assert state.coming_keys.shape[2] == state.coming_values.shape[2] == t - 16 * blocks
        assert state.selected_keys.shape[2] == t
        assert state.window_keys.shape[2] == min(t, 255)
