"""Mixers whose tokens choose what they see, against references of one token and head at a time."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.sparse.moba import Moba
from hybridlab.mixers.sparse.nsa import Compression, Nsa
from hybridlab.mixers.sparse.routing import Routing
from tests.mixers.agree import WIDTH, agree
from tests.mixers.oracles import rotated
from tests.mixers.subject import in_chunks


@pytest.mark.parametrize("t", [1, 7, 8, 60])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"block": 8},
        {"block": 8, "top_k": 1},
        {"block": 8, "top_k": 4, "kv_heads": 2},
        {"block": 5, "top_k": 2, "kv_heads": 1, "rope": None},
        {"block": 1, "top_k": 9, "heads": 2},
    ],
    ids=str,
)
def test_moba(settings: dict[str, Any], t: int) -> None:
    agree(Moba(width=WIDTH, **settings), moba, t)


def moba(mixer: Moba, x: Tensor) -> Tensor:
    """Sort earlier blocks by query times mean key, and attend to the tokens of the best."""
    q, k, v = heads_of(mixer, x)
    q, k = (turned(each, mixer.projections.rope) for each in (q, k))

    def seen(row: int, head: int, i: int) -> list[int]:
        own = i // mixer.block
        gate = {b: q[row, head, i] @ k[row, head, b * mixer.block : (b + 1) * mixer.block].mean(0) for b in range(own)}
        best = sorted(gate, key=lambda b: -gate[b].item())[: mixer.top_k - 1]
        return [j for j in range(i + 1) if j // mixer.block in {own, *best}]

    return joined(softmax_over(q, k, v, seen)) @ mixer.out.weight.mT


@pytest.mark.parametrize("t", [1, 7, 8, 17, 70])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compress_block": 8, "compress_stride": 4, "select_block": 8, "top_k": 4, "window": 5},
        {"compress_block": 4, "compress_stride": 4, "select_block": 8, "top_k": 3, "window": 64, "kv_heads": 2},
        {"compress_block": 4, "compress_stride": 2, "select_block": 4, "top_k": 6, "window": 1, "rope": None},
        {"compress_block": 1, "compress_stride": 1, "select_block": 4, "top_k": 5, "window": 9, "kv_heads": 4},
    ],
    ids=str,
)
def test_nsa(settings: dict[str, Any], t: int) -> None:
    agree(Nsa(width=WIDTH, **settings), nsa, t)


def nsa(mixer: Nsa, x: Tensor) -> Tensor:
    """Run three attentions, each with keys of its own, and add them up by their gates."""
    q, k, v = heads_of(mixer, x)
    heads, groups, each = q.shape[1], mixer.projections.kv_heads, q.shape[-1]
    length, stride, block = mixer.compress_block, mixer.compress_stride, mixer.select_block
    first, second, third, fourth = (
        repeated(x @ weight.mT, each, heads) for weight in mixer.branches.weight.chunk(4, dim=0)
    )
    turned_q, first, third = (turned(part, mixer.projections.rope) for part in (q, first, third))
    starts = range(0, x.shape[1] - length + 1, stride)
    compressed_k, compressed_v = (
        torch.stack([compressed_block(map_, part[:, :, s : s + length]) for s in starts], dim=2)
        if starts
        else part[:, :, :0]
        for map_, part in ((mixer.key_compression, k), (mixer.value_compression, v))
    )

    def finished(_row: int, _head: int, i: int) -> list[int]:
        return [c for c, s in enumerate(starts) if s + length - 1 <= i]

    def selected(row: int, head: int, i: int) -> list[int]:
        importance = dict.fromkeys(range(i // block + 1), 0.0)
        group = head // (heads // groups)
        for other in range(group * heads // groups, (group + 1) * heads // groups):
            blocks = finished(row, other, i)
            weights = (compressed_k[row, other, blocks] @ q[row, other, i] / math.sqrt(each)).softmax(-1)
            for c, weight in zip(blocks, weights.tolist(), strict=True):
                for j in range(starts[c], starts[c] + length):
                    importance[j // block] = importance.get(j // block, 0.0) + weight
        fixed = {0, i // block, max(i // block - 1, 0)}
        others = [b for b in sorted(importance, key=lambda b: -importance[b]) if b < i // block and b not in fixed]
        best = fixed | set(others[: mixer.chosen])
        return [j for j in range(i + 1) if j // block in best]

    def latest(_row: int, _head: int, i: int) -> list[int]:
        return list(range(max(0, i - mixer.window + 1), i + 1))

    gates = 1 / (1 + torch.exp(-(x @ mixer.gates.weight.mT).unflatten(-1, (heads, 3)).transpose(1, 2)))
    o = (
        gates[..., 0:1] * softmax_over(q, compressed_k, compressed_v, finished)
        + gates[..., 1:2] * softmax_over(turned_q, first, second, selected)
        + gates[..., 2:3] * softmax_over(turned_q, third, fourth, latest)
    )
    return joined(o) @ mixer.out.weight.mT


def compressed_block(map_: Compression, block: Tensor) -> Tensor:
    pooled = sum(map_.weight[j] * block[:, :, j] for j in range(block.shape[2]))
    assert isinstance(pooled, Tensor)
    inner = pooled @ map_.inner.weight.mT
    return pooled + (inner * (1 + torch.erf(inner / math.sqrt(2))) / 2) @ map_.outer.weight.mT


@pytest.mark.parametrize("t", [1, 7, 70, 150])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clusters": 3, "window": 4},
        {"clusters": 2, "window": 1},
        {"clusters": 2, "window": 50, "heads": 2},
        {"clusters": 5, "window": 9, "heads": 1, "rope": None},
    ],
    ids=str,
)
def test_routing(settings: dict[str, Any], t: int) -> None:
    agree(Routing(width=WIDTH, **settings), routing, t)


def routing(mixer: Routing, x: Tensor) -> Tensor:
    """Take each token's cluster, and attend to the last members before it and itself."""
    q, k, v = heads_of(mixer, x)
    each = q.shape[-1]
    lengths = k.norm(dim=-1)[..., None] * mixer.centroids.norm(dim=-1)[:, None, :]
    scores = each * (k @ mixer.centroids.mT) / lengths
    best, second = scores.sort(dim=-1, descending=True).values[..., :2].unbind(-1)
    margin = 2 / (1 + torch.exp(second - best)) - 1
    cluster = scores.argmax(-1).tolist()
    q, k = (turned(part, mixer.projections.rope) for part in (q, k))

    def members(row: int, head: int, i: int) -> list[int]:
        own = cluster[row][head]
        return [j for j in range(i + 1) if own[j] == own[i]][-mixer.window :]

    return joined(margin[..., None] * softmax_over(q, k, v, members, margin)) @ mixer.out.weight.mT


def heads_of(mixer: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, b h t k, without rotation; each head has its own keys."""
    maps, each = mixer.projections, mixer.projections.head_width
    heads = x.shape[-1] // each
    q, k, v = (repeated(x @ map_.weight.mT, each, heads) for map_ in (maps.query, maps.key, maps.value))
    return q, k, v


def repeated(x: Tensor, each: int, heads: int) -> Tensor:
    parts = [x[..., start : start + each] for start in range(0, x.shape[-1], each)]
    return torch.stack([parts[head * len(parts) // heads] for head in range(heads)], dim=1)


def turned(x: Tensor, base: float | None) -> Tensor:
    return x if base is None else torch.stack([rotated(head, base) for head in x.unbind(1)], dim=1)


def softmax_over(q: Tensor, k: Tensor, v: Tensor, seen: Any, factors: Tensor | None = None) -> Tensor:
    """Attend from each token to `seen(sequence, head, token)`; zeros if that is empty."""
    rows = []
    for row in range(q.shape[0]):
        for head in range(q.shape[1]):
            for i in range(q.shape[2]):
                places = seen(row, head, i)
                if not places:
                    rows.append(torch.zeros_like(q[row, head, i]))
                    continue
                weights = (k[row, head, places] @ q[row, head, i] / math.sqrt(q.shape[-1])).exp()
                if factors is not None:
                    weights = weights * factors[row, head, places]
                rows.append(weights @ v[row, head, places] / weights.sum())
    return torch.stack(rows).reshape(*q.shape[:3], -1)


def joined(o: Tensor) -> Tensor:
    return torch.cat(o.unbind(1), dim=-1)


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
