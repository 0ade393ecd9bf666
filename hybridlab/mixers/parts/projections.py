"""The maps from the residual stream to heads of queries, keys and values, and back."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, arange, nn
from torch.nn import functional as F

from hybridlab.errors import ConfigError
from hybridlab.mixers.base import tag
from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.ops.attention.rotary import rotary_turns, rotate
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.validate import divides, positive, whole


class QueryKeyValue(nn.Module):
    """Linear maps to `heads` queries and `kv_heads` keys and values.

    Queries and keys have rotary positions of base `rope`, or none. With fewer `kv_heads` than
    `heads`, each key and value serves several queries (GQA, 2305.13245). `qk_norm` divides each
    query and key by its root mean square and multiplies it by a learned scale that all heads share
    (after 2302.05442).
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        rope: float | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        whole(heads=heads, kv_heads=kv_heads)
        divides(width, "the width", heads=heads)
        divides(heads, "heads", kv_heads=kv_heads)
        self.head_width = width // heads
        check_rope(rope, self.head_width)
        self.kv_heads = kv_heads
        self.rope = rope
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.query_norm = HeadNorm(self.head_width) if qk_norm else nn.Identity()
        self.key_norm = HeadNorm(self.head_width) if qk_norm else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b t d"], past: int | Int[Tensor, "b 1"] = 0
    ) -> tuple[Float[Tensor, "b h t k"], Float[Tensor, "b g t k"], Float[Tensor, "b g t k"]]:
        """Return queries, keys and values of a chunk that follows `past` tokens."""
        q, k, v = (split_heads(project(x), self.head_width) for project in (self.query, self.key, self.value))
        q, k = self.query_norm(q), self.key_norm(k)
        if self.rope is not None:
            turns = rotary_turns(past + arange(x.shape[1], device=x.device), q, self.rope)
            q, k = rotate(q, turns), rotate(k, turns)
        return q, k, v

    def no_past(self, batch: int, like: Tensor) -> KeyValues:
        """Return empty keys and values."""
        empty = like.new_empty(batch, self.kv_heads, 0, self.head_width)
        return KeyValues(empty, empty)


def check_rope(rope: float | None, head_width: int) -> None:
    """Validate the base of rotary positions; each pair of channels is one rotation."""
    positive(null="no positions", rope=rope)
    if rope is not None and head_width % 2:
        raise ConfigError(f"rope={rope}: needs an even head width, not {head_width}, or null: no positions")


class HeadNorm(nn.Module):
    """RMS norm of each head, with a learned scale that all heads share."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.scale = tag(nn.Parameter(torch.ones(head_width)), decay=False, initialise=False)

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
        """Normalise in float32 at least."""
        wide = x.to(accumulation_dtype(x))
        return (F.rms_norm(wide, wide.shape[-1:], eps=1e-6) * self.scale).to(x.dtype)


def split_heads(x: Float[Tensor, "b t c"], head_width: int) -> Float[Tensor, "b h t k"]:
    """Split the last dimension, c = h·k, into heads, and move them before time."""
    return x.unflatten(-1, (-1, head_width)).transpose(1, 2)


def join_heads(x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b t h*k"]:
    """Undo `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def join_normalised_heads(x: Float[Tensor, "b h t k"], scale: Float[Tensor, " k"]) -> Float[Tensor, "b t h*k"]:
    """Apply an RMS norm with one scale for all heads to each head, and join the heads."""
    return join_heads(F.rms_norm(x, x.shape[-1:], eps=1e-5) * scale)
