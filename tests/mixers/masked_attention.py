"""Softmax attention under an explicit mask: the reference of all mixers with a fixed pattern."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.mixers.agree import agree
from tests.mixers.oracles import rotated

Sees = Callable[[int, int, int], bool]  # does, in a head, token i see token j?
BOTH = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])


def agrees(mixer: Any, sees: Sees, t: int) -> None:
    agree(mixer, lambda mixer, x: attention(mixer, x, sees), t)


def attention(mixer: Any, x: Tensor, sees: Sees) -> Tensor:
    """Attend one head at a time, each with its own copy of its keys, under its own mask."""
    own, t = mixer.projections, x.shape[1]
    each = own.head_width
    heads = x.shape[2] // each
    outputs = []
    for head in range(heads):
        shared = head // (heads // own.kv_heads)
        q = x @ own.query.weight[head * each : (head + 1) * each].mT
        k = x @ own.key.weight[shared * each : (shared + 1) * each].mT
        v = x @ own.value.weight[shared * each : (shared + 1) * each].mT
        if not isinstance(own.query_norm, torch.nn.Identity):
            q, k = normalised(q) * own.query_norm.scale, normalised(k) * own.key_norm.scale
        if own.rope is not None:
            q, k = rotated(q, own.rope), rotated(k, own.rope)
        mask = torch.tensor([[sees(head, i, j) for j in range(t)] for i in range(t)])
        scores = (q @ k.mT / each**0.5).masked_fill(~mask, -torch.inf)
        outputs.append(scores.softmax(-1) @ v)
    return torch.cat(outputs, dim=-1) @ mixer.out.weight.mT


def normalised(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
