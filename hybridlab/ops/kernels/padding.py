"""Vectors of any width for kernels that hold powers of two in registers: filled up with zeros, or cut into parts.

Zeros at the end of queries and keys, or of values, leave a linear recurrence as it is. Columns of its state, one for each
value, never see one another; its rows, one for each channel of the keys, do so in delta rules alone.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

WIDEST = 128  # numbers of a vector that a program of the kernels holds


def kernel_width(width: int) -> int:
    """Return the least power of two, 16 at least, that is not below a width."""
    return max(16, 1 << (width - 1).bit_length())


def rounded_up(width: int, multiple: int) -> int:
    """Return the least multiple that is not below a width."""
    return -(-width // multiple) * multiple


def widened(x: Float[Tensor, "*b m n"], columns: int, rows: int | None = None) -> Float[Tensor, "*b rows columns"]:
    """Fill up with zeros to so many columns, and to so many rows if they are given."""
    below, beside = 0 if rows is None else rows - x.shape[-2], columns - x.shape[-1]
    return F.pad(x, (0, beside, 0, below)) if below or beside else x


def parts_of(width: int) -> int:
    """Return into how many parts a vector is cut so that none is wider than a program takes."""
    return -(-width // WIDEST)


def cut(x: Float[Tensor, "b h *t n"], parts: int) -> Float[Tensor, "b h*parts *t n/parts"]:
    """Make a head of each part of a head's vectors; the last part is filled up with zeros."""
    whole = widened(x, rounded_up(x.shape[-1], parts))
    return whole.unflatten(-1, (parts, -1)).movedim(-2, 2).flatten(1, 2)


def joined(x: Float[Tensor, "b h*parts *t n/parts"], parts: int, width: int) -> Float[Tensor, "b h *t n"]:
    """Undo `cut` of vectors of a width."""
    return x.unflatten(1, (-1, parts)).movedim(2, -2).flatten(-2)[..., :width]


def by_parts_of_keys(
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], tuple[Tensor, Tensor]],
    q: Float[Tensor, "b g t k"],
    k: Float[Tensor, "b g t k"],
    v: Float[Tensor, "b h t v"],
    log_decay: Float[Tensor, "b h t"] | Float[Tensor, "b h t k"] | None,
    state: Float[Tensor, "b h k v"] | None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Call a linear attention on parts of the keys, each with the rows of the state that are its own, and add up outputs."""
    (groups, width), parts = k.shape[1::2], parts_of(k.shape[-1])
    if parts == 1:
        return attend(q, k, v, log_decay, state)

    def repeated(x: Tensor) -> Tensor:
        """Give each part of a group's keys what the heads of the group have."""
        return x.unflatten(1, (groups, 1, -1)).expand(-1, -1, parts, *(-1,) * (x.dim() - 1)).flatten(1, 3)

    if log_decay is not None:
        log_decay = cut(log_decay, parts) if log_decay.dim() == k.dim() else repeated(log_decay)
    if state is not None:
        rows = widened(state, v.shape[-1], rounded_up(width, parts)).unflatten(1, (groups, -1))
        state = rows.unflatten(3, (parts, -1)).movedim(3, 2).flatten(1, 3)
    o, last = attend(cut(q, parts), cut(k, parts), repeated(v), log_decay, state)
    of_parts = (groups, parts, -1)
    last = last.unflatten(1, of_parts).movedim(2, 3).flatten(3, 4).flatten(1, 2)
    return o.unflatten(1, of_parts).sum(2).flatten(1, 2), last[:, :, :width]


def by_parts_of_values(
    attend: Callable[..., tuple[Tensor, Tensor]],
    v: Float[Tensor, "b h t v"],
    state: Float[Tensor, "b h k v"] | None,
    *shared: Tensor | None,
) -> tuple[Float[Tensor, "b h t v"], Float[Tensor, "b h k v"]]:
    """Call a linear recurrence on parts of the values and of the state's columns, with what all parts of a head share."""
    width, parts = v.shape[-1], parts_of(v.shape[-1])
    if parts == 1:
        return attend(v, state, *shared)
    repeated = (None if x is None else x.repeat_interleave(parts, dim=1) for x in shared)
    o, last = attend(cut(v, parts), None if state is None else cut(state, parts), *repeated)
    return joined(o, parts, width), joined(last, parts, width)
