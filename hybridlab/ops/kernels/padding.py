"""Shapes for kernels that hold powers of two in registers: vectors of any width are padded with
zeros or split.

Zeros appended to queries and keys, or to values, leave a linear recurrence unchanged. The columns
of its state, one per value channel, never interact; the rows, one per key channel, interact only in
delta rules.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64  # tokens per chunk in the kernels of linear recurrences
MAX_WIDTH = 128  # the widest vector that a program of these kernels holds


def kernel_width(width: int) -> int:
    """Return the smallest power of two that is at least `width` and at least 16."""
    return max(16, 1 << (width - 1).bit_length())


def round_up(size: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def pad_to(x: Float[Tensor, "*b m n"], columns: int, rows: int | None = None) -> Float[Tensor, "*b rows columns"]:
    """Append zeros until x has this many columns and, if given, this many rows."""
    below, beside = 0 if rows is None else rows - x.shape[-2], columns - x.shape[-1]
    return F.pad(x, (0, beside, 0, below)) if below or beside else x


def num_splits(width: int) -> int:
    """Return how many splits of a vector are needed so that none is wider than `MAX_WIDTH`."""
    return -(-width // MAX_WIDTH)


def split_width(x: Float[Tensor, "b h *t n"], splits: int) -> Float[Tensor, "b h_splits *t n_split"]:
    """Split each head's vectors into `splits` heads of equal width; the last is padded with
    zeros."""
    whole = pad_to(x, round_up(x.shape[-1], splits))
    return whole.unflatten(-1, (splits, -1)).movedim(-2, 2).flatten(1, 2)


def merge_width(x: Float[Tensor, "b h_splits *t n_split"], splits: int, width: int) -> Float[Tensor, "b h *t n"]:
    """Undo `split_width` for vectors of this width."""
    return x.unflatten(1, (-1, splits)).movedim(2, -2).flatten(-2)[..., :width]


def split_over_keys(
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor]],
    q: Float[Tensor, "b g t k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t"] | Float[Tensor, "b h t k"] | None,
    state: Float[Tensor, "b h k v"] | None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Run a linear attention on splits of the keys, each with its own rows of the state, and add up
    the outputs."""
    (groups, width), splits = k.shape[1::2], num_splits(k.shape[-1])
    if splits == 1:
        return attend(q, k, v, log_decay, state)

    def repeat(x: Tensor) -> Tensor:
        """Copy the heads of each group for each split of the group's keys."""
        return x.unflatten(1, (groups, 1, -1)).expand(-1, -1, splits, *(-1,) * (x.dim() - 1)).flatten(1, 3)

    if log_decay is not None:
        log_decay = split_width(log_decay, splits) if log_decay.dim() == k.dim() else repeat(log_decay)
    if state is not None:
        rows = pad_to(state, v.shape[-1], round_up(width, splits)).unflatten(1, (groups, -1))
        state = rows.unflatten(3, (splits, -1)).movedim(3, 2).flatten(1, 3)
    o, last = attend(split_width(q, splits), split_width(k, splits), repeat(v), log_decay, state)
    by_split = (groups, splits, -1)
    last = last.unflatten(1, by_split).movedim(2, 3).flatten(3, 4).flatten(1, 2)
    return o.unflatten(1, by_split).sum(2).flatten(1, 2), last[:, :, :width]


def split_over_values(
    attend: Callable[..., tuple[Tensor, Tensor]],
    v: Float[Tensor, "b h t v"],
    state: Float[Tensor, "b h k v"] | None,
    *shared: Tensor | None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Run a linear recurrence on splits of the values and of the state's columns; the splits of a
    head use the same `shared`."""
    width, splits = v.shape[-1], num_splits(v.shape[-1])
    if splits == 1:
        return attend(v, state, *shared)
    repeated = (None if x is None else x.repeat_interleave(splits, dim=1) for x in shared)
    o, last = attend(split_width(v, splits), None if state is None else split_width(state, splits), *repeated)
    return merge_width(o, splits, width), merge_width(last, splits, width)
