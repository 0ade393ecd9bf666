"""Causal attention with the weights 1 + s + s²/2 as GPU kernels: products of a block of queries and a block of keys stay in
registers, and are made again for the gradients. A row's sum of weights comes beside its sum of weighed values."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher

# On Hopper, products of fewer columns are wrong where the first factor lies in registers (see `chunk_recurrence_triton`).
ROOM = 64


@triton.jit
def _vectors(pointer, row, tokens, t, width, columns: tl.constexpr):
    """Load the vectors of some tokens of a row, as zeros where there are none."""
    c = tl.arange(0, columns)
    inside = (tokens < t)[:, None] & (c < width)[None, :]
    return tl.load(pointer + (row * t + tokens)[:, None] * width + c[None, :], mask=inside, other=0.0)


@triton.jit
def _store(pointer, found, row, tokens, t, width, columns: tl.constexpr):
    c = tl.arange(0, columns)
    inside = (tokens < t)[:, None] & (c < width)[None, :]
    place = pointer + (row * t + tokens)[:, None] * width + c[None, :]
    tl.store(place, found.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def _outputs_kernel(
    queries, keys, values, o, sums, t, d, width,
    block: tl.constexpr, step: tl.constexpr, narrow: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    first, row = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    i = first + tl.arange(0, block)
    query = _vectors(queries, row, i, t, d, narrow)
    found, total = tl.zeros([block, wide], tl.float32), tl.zeros([block], tl.float32)
    for start in range(0, first + block, step):
        j = start + tl.arange(0, step)
        s = tl.dot(query, tl.trans(_vectors(keys, row, j, t, d, narrow)))
        weights = tl.where(i[:, None] >= j[None, :], 1 + s * (1 + 0.5 * s), 0.0)
        total += tl.sum(weights, 1)
        found = tl.dot(weights.to(query.dtype), _vectors(values, row, j, t, width, wide), acc=found)
    _store(o, found, row, i, t, width, wide)
    tl.store(sums + row * t + i, total, mask=i < t)


@triton.jit
def _queries_kernel(
    queries, keys, values, d_o, d_sums, d_queries, t, d, width,
    block: tl.constexpr, step: tl.constexpr, narrow: tl.constexpr, room: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """What reaches a block of queries."""
    first, row = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    i = first + tl.arange(0, block)
    query, arriving = _vectors(queries, row, i, t, d, narrow), _vectors(d_o, row, i, t, width, wide)
    d_total = tl.load(d_sums + row * t + i, mask=i < t, other=0.0)
    found = tl.zeros([block, room], tl.float32)
    for start in range(0, first + block, step):
        j = start + tl.arange(0, step)
        s = tl.dot(query, tl.trans(_vectors(keys, row, j, t, d, narrow)))
        d_weights = tl.dot(arriving, tl.trans(_vectors(values, row, j, t, width, wide))) + d_total[:, None]
        d_s = tl.where((i[:, None] >= j[None, :]) & (j < t)[None, :], d_weights * (1 + s), 0.0)
        found = tl.dot(d_s.to(query.dtype), _vectors(keys, row, j, t, d, room), acc=found)
    _store(d_queries, found, row, i, t, d, room)


@triton.jit
def _keys_kernel(
    queries, keys, values, d_o, d_sums, d_keys, d_values, t, d, width,
    block: tl.constexpr, step: tl.constexpr, narrow: tl.constexpr, room: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """What reaches a block of keys, and its values."""
    first, row = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    j = first + tl.arange(0, block)
    key, value = _vectors(keys, row, j, t, d, narrow), _vectors(values, row, j, t, width, wide)
    of_key, of_value = tl.zeros([block, room], tl.float32), tl.zeros([block, wide], tl.float32)
    for start in range(first, t, step):
        i = start + tl.arange(0, step)
        arriving, d_total = _vectors(d_o, row, i, t, width, wide), tl.load(d_sums + row * t + i, mask=i < t, other=0.0)
        s = tl.dot(key, tl.trans(_vectors(queries, row, i, t, d, narrow)))
        seen = i[None, :] >= j[:, None]
        weights = tl.where(seen, 1 + s * (1 + 0.5 * s), 0.0)
        of_value = tl.dot(weights.to(key.dtype), arriving, acc=of_value)
        d_weights = tl.dot(value, tl.trans(arriving)) + d_total[None, :]
        d_s = tl.where(seen, d_weights * (1 + s), 0.0)
        of_key = tl.dot(d_s.to(key.dtype), _vectors(queries, row, i, t, d, room), acc=of_key)
    _store(d_keys, of_key, row, j, t, d, room)
    _store(d_values, of_value, row, j, t, width, wide)


@triton_op("hybridlab::taylor_attention", mutates_args={})
def attend(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ_{j<=i} w_ij v_j [r t v] and Σ_{j<=i} w_ij [r t] in float32, w_ij = 1 + s_ij + s_ij²/2 and s = q·k.

    Queries and keys [r t d] and values [r t v] in half precision; d at most 64, v at most 128.
    """
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    (rows, t, width), d = values.shape, queries.shape[-1]
    o, sums = torch.empty_like(values), values.new_empty(rows, t, dtype=torch.float32)
    launcher(_outputs_kernel)[(triton.cdiv(t, 128), rows)](
        queries, keys, values, o, sums, t, d, width,
        block=128, step=64, narrow=_narrow(d), wide=_wide(width), num_warps=8, num_stages=3,
    )  # fmt: skip
    return o, sums


@triton_op("hybridlab::taylor_attention_backward", mutates_args={})
def _gradients(
    queries: Tensor, keys: Tensor, values: Tensor, d_o: Tensor, d_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys, values, d_o, d_sums = (x.contiguous() for x in (queries, keys, values, d_o, d_sums))
    d_queries, d_keys, d_values = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    (rows, t, width), d = values.shape, queries.shape[-1]
    form = {"block": 64, "step": 64, "narrow": _narrow(d), "room": ROOM, "wide": _wide(width)}
    launcher(_queries_kernel)[(triton.cdiv(t, 64), rows)](
        queries, keys, values, d_o, d_sums, d_queries, t, d, width, **form, num_warps=4, num_stages=3
    )
    launcher(_keys_kernel)[(triton.cdiv(t, 64), rows)](
        queries, keys, values, d_o, d_sums, d_keys, d_values, t, d, width, **form, num_warps=4, num_stages=3
    )
    return d_queries, d_keys, d_values


def _narrow(d: int) -> int:
    return max(16, triton.next_power_of_2(d))


def _wide(width: int) -> int:
    return max(ROOM, triton.next_power_of_2(width))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, d_o: Tensor, d_sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(*ctx.saved_tensors, d_o, d_sums)


attend.register_autograd(_backward, setup_context=_save)
