"""Nyströmformer and its causal form against one token at a time; bad values, initialisation."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.low_rank.nystrom import Nystrom
from hybridlab.mixers.low_rank.nystrom_causal import NystromCausal
from tests.mixers.agree import WIDTH, agree


def nystrom(mixer: Nystrom, x: Tensor) -> Tensor:
    """Compute landmarks, three matrices, iteration and convolution for each sequence and head."""
    heads = mixer.projections.kv_heads
    rows = [
        torch.cat([nystrom_head(mixer, head, row) for head in range(heads)], dim=-1) @ mixer.out.weight.mT for row in x
    ]
    return torch.stack(rows)


def nystrom_head(mixer: Nystrom, head: int, x: Tensor) -> Tensor:
    q, k, v = one_head(mixer, head, x)
    t, m = len(q), mixer.landmarks
    if t <= m:
        o = weights(q, k) @ v
    else:
        longer, length = t % m, t // m
        ends = [(i + 1) * length + min(i + 1, longer) for i in range(m)]
        starts = [0, *ends[:-1]]
        few_q, few_k = (
            torch.stack([sum(each[start:end]) / (end - start) for start, end in zip(starts, ends, strict=True)])
            for each in (q, k)
        )
        a = weights(few_q, few_k)
        eye = torch.eye(m, dtype=x.dtype)
        z = a.T / a.sum(0).max()
        for _ in range(mixer.iterations):
            z = z @ (13 * eye - a @ z @ (15 * eye - a @ z @ (7 * eye - a @ z))) / 4
        o = weights(q, few_k) @ z @ weights(few_q, k) @ v
    taps = mixer.conv.shape[1]
    around = [
        sum(mixer.conv[head, j] * v[i + j - taps // 2] for j in range(taps) if 0 <= i + j - taps // 2 < t)
        for i in range(t)
    ]
    return o + torch.stack(around)  # type: ignore[arg-type]


def weights(q: Tensor, k: Tensor) -> Tensor:
    scores = (q @ k.T / math.sqrt(q.shape[-1])).exp()
    return scores / scores.sum(-1, keepdim=True)


def one_head(mixer: Any, head: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    projections = mixer.projections
    own = slice(head * projections.head_width, (head + 1) * projections.head_width)
    q, k, v = (x @ project.weight[own].T for project in (projections.query, projections.key, projections.value))
    return q, k, v


def nystrom_causal(mixer: NystromCausal, x: Tensor) -> Tensor:
    """Weigh each earlier token by its exponential, or by Nyström with the landmarks of its time."""
    heads = range(mixer.projections.kv_heads)
    return torch.cat([nystrom_causal_head(mixer, head, x) for head in heads], dim=-1) @ mixer.out.weight.mT


def nystrom_causal_head(mixer: NystromCausal, head: int, x: Tensor) -> Tensor:
    q, k, v = one_head(mixer, head, x)
    q, k = (each / (each.square().mean(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
    t, block = x.shape[1], mixer.block
    finished = [k[:, number * block : (number + 1) * block].mean(1) for number in range(t // block)]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return ((a * b).sum(-1) / math.sqrt(k.shape[-1])).exp()

    # Kernels of queries and keys with the landmarks of each time, and of the landmarks with each
    # other, scaled to 1 on the diagonal, to which the ridge is added. The weight of a key is a sum
    # of terms, whose sizes set the floor.
    times = []
    for number in range(1, min(len(finished), mixer.landmarks) + 1):
        few = torch.stack(finished[:number], dim=1)
        scales = kernel(few, few) ** -0.5
        of_q, of_k = (kernel(few[:, None], each[:, :, None]) * scales[:, None] for each in (q, k))
        middle = kernel(few[:, :, None], few[:, None]) * scales[:, :, None] * scales[:, None]
        middle = middle + mixer.ridge * torch.eye(number, dtype=x.dtype)
        root = torch.linalg.cholesky(middle)
        terms = [torch.linalg.solve(root, each.mT).mT for each in (of_q, of_k)]
        times.append((of_q @ torch.linalg.solve(middle, of_k.mT), terms[0].abs() @ terms[1].abs().mT))

    outputs = []
    for i in range(t):
        total, mass, far_mass, far_size = 0, 0, x.new_zeros(len(x)), x.new_zeros(len(x))
        for j in range(i + 1):
            if i // block - j // block < 2:
                weight = kernel(q[:, i], k[:, j])
                mass = mass + weight
            else:
                products, sizes = times[min(j // block + 1, mixer.landmarks) - 1]
                weight = products[:, i, j]
                far_mass, far_size = far_mass + weight, far_size + sizes[:, i, j]
            total = total + weight[:, None] * v[:, j]
        outputs.append(total / (mass + torch.maximum(far_mass, 0.05 * far_size))[:, None])
    return torch.stack(outputs, dim=1)


@pytest.mark.parametrize("t", [1, 6, 7, 12, 40])
@pytest.mark.parametrize(
    "settings",
    [
        {"landmarks": 6, "conv_size": 5},
        {"heads": 1, "landmarks": 5, "iterations": 1, "conv_size": 1},
        {"heads": 8, "landmarks": 1, "iterations": 3, "conv_size": 33},
        {"heads": 2, "landmarks": 30},
    ],
    ids=str,
)
def test_nystrom(settings: dict[str, Any], t: int) -> None:
    agree(Nystrom(width=WIDTH, **settings), nystrom, t)


@pytest.mark.parametrize("t", [1, 4, 13, 26])
@pytest.mark.parametrize(
    "settings",
    [
        {"block": 4, "landmarks": 3},
        {"heads": 1, "block": 1, "landmarks": 6, "ridge": 0.1},
        {"heads": 2, "block": 3, "landmarks": 30},
        {"heads": 2, "block": 30, "landmarks": 1},
    ],
    ids=str,
)
def test_nystrom_causal(settings: dict[str, Any], t: int) -> None:
    agree(NystromCausal(width=WIDTH, **settings), nystrom_causal, t)


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (Nystrom, {"heads": 5}, "heads=5: must divide the width, 64"),
        (Nystrom, {"landmarks": 0}, "landmarks=0: must be a whole number of at least 1"),
        (Nystrom, {"conv_size": 4}, "conv_size=4: must be odd: as many taps before a token as after it"),
        (NystromCausal, {"heads": 5}, "heads=5: must divide the width, 64"),
        (NystromCausal, {"block": 0}, "block=0: must be a whole number of at least 1"),
        (NystromCausal, {"ridge": 0.0}, "ridge=0.0: must be a number of at least 1e-05"),
        (NystromCausal, {"ridge": math.nan}, "ridge=nan: must be a number of at least 1e-05"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_values_are_refused_in_words(cls: type[Mixer], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cls(width=64, **settings)


def test_nystrom_keeps_the_filters_it_starts_with() -> None:
    torch.manual_seed(0)
    conv = Nystrom(width=64).conv
    assert conv.shape == (4, 33)
    assert 0.9 * 33**-0.5 < conv.abs().max() <= 33**-0.5
    assert (conv.takes_weight_decay, conv.takes_initialisation) == (True, False)  # type: ignore[attr-defined]


@pytest.mark.parametrize("t", [64, 256])
def test_nystrom_is_that_of_transformers(t: int) -> None:
    from transformers import NystromformerConfig
    from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

    torch.manual_seed(0)
    config = NystromformerConfig(
        hidden_size=64,
        num_attention_heads=4,
        num_landmarks=64,
        segment_means_seq_len=t,
        conv_kernel_size=33,
        attention_probs_dropout_prob=0.0,
    )
    theirs, ours = NystromformerSelfAttention(config), Nystrom(width=64)
    # Its default initialises the iteration with one scale per batch; the paper's other formula has
    # one per matrix.
    theirs.init_option = "exact"
    with torch.no_grad():
        for name in ("query", "key", "value"):
            getattr(theirs, name).weight.copy_(3 * getattr(ours.projections, name).weight)
            getattr(theirs, name).bias.zero_()
            getattr(ours.projections, name).weight.copy_(getattr(theirs, name).weight)
        theirs.conv.weight.copy_(ours.conv[:, None, :, None])
        ours.out.weight.copy_(torch.eye(64))
    x = torch.randn(2, t, 64)
    found, expected = ours(x), theirs(x)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
