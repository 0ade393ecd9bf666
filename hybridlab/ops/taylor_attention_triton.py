"""Causal attention with the weights 1 + s + s²/2 as GPU kernels: products of a block of queries and a block of keys stay in
registers, and are made again for the gradients."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernel_launch import launcher

# Columns of queries and keys, and of values, in a program. On Hopper, products of fewer are wrong where the first factor lies in
# registers (see `chunk_recurrence_triton`).
NARROW, WIDE = 64, 128


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
    queries, keys, values, o, t, d, width,
    block: tl.constexpr, step: tl.constexpr, narrow: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    first, row = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    i = first + tl.arange(0, block)
    query = _vectors(queries, row, i, t, d, narrow)
    found = tl.zeros([block, wide], tl.float32)
    for start in range(0, first + block, step):
        j = start + tl.arange(0, step)
        s = tl.dot(query, tl.trans(_vectors(keys, row, j, t, d, narrow)))
        weights = tl.where(i[:, None] >= j[None, :], 1 + s * (1 + 0.5 * s), 0.0)
        found = tl.dot(weights.to(query.dtype), _vectors(values, row, j, t, width, wide), acc=found)
    _store(o, found, row, i, t, width, wide)


@triton.jit
def _queries_kernel(
    queries, keys, values, d_o, d_queries, t, d, width,
    block: tl.constexpr, step: tl.constexpr, narrow: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """What reaches a block of queries."""
    first, row = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    i = first + tl.arange(0, block)
    query, arriving = _vectors(queries, row, i, t, d, narrow), _vectors(d_o, row, i, t, width, wide)
    found = tl.zeros([block, narrow], tl.float32)
    for start in range(0, first + block, step):
        j = start + tl.arange(0, step)
        key = _vectors(keys, row, j, t, d, narrow)
        s = tl.dot(query, tl.trans(key))
        d_weights = tl.dot(arriving, tl.trans(_vectors(values, row, j, t, width, wide)))
        d_s = tl.where(i[:, None] >= j[None, :], d_weights * (1 + s), 0.0)
        found = tl.dot(d_s.to(query.dtype), key, acc=found)
    _store(d_queries, found, row, i, t, d, narrow)


@triton.jit
def _keys_kernel(
    queries, keys, values, d_o, d_keys, d_values, t, d, width,
    block: tl.constexpr, step: tl.constexpr, narrow: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """What reaches a block of keys, and its values."""
    first, row = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    j = first + tl.arange(0, block)
    key, value = _vectors(keys, row, j, t, d, narrow), _vectors(values, row, j, t, width, wide)
    of_key, of_value = tl.zeros([block, narrow], tl.float32), tl.zeros([block, wide], tl.float32)
    for start in range(first, t, step):
        i = start + tl.arange(0, step)
        query, arriving = _vectors(queries, row, i, t, d, narrow), _vectors(d_o, row, i, t, width, wide)
        s = tl.dot(key, tl.trans(query))
        seen = i[None, :] >= j[:, None]
        weights = tl.where(seen, 1 + s * (1 + 0.5 * s), 0.0)
        of_value = tl.dot(weights.to(key.dtype), arriving, acc=of_value)
        d_s = tl.where(seen, tl.dot(value, tl.trans(arriving)) * (1 + s), 0.0)
        of_key = tl.dot(d_s.to(key.dtype), query, acc=of_key)
    _store(d_keys, of_key, row, j, t, d, narrow)
    _store(d_values, of_value, row, j, t, width, wide)


@triton_op("hybridlab::taylor_attention", mutates_args={})
def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return Σ_{j<=i} (1 + s_ij + s_ij²/2) v_j [r t v], s = q·k, of queries and keys [r t d] and values [r t v].

    All in half precision; d at most 64, v at most 128.
    """
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    o = torch.empty_like(values)
    rows, t, width = values.shape
    launcher(_outputs_kernel)[(triton.cdiv(t, 128), rows)](
        queries, keys, values, o, t, queries.shape[-1], width,
        block=128, step=64, narrow=NARROW, wide=WIDE, num_warps=8, num_stages=3,
    )  # fmt: skip
    return o


@triton_op("hybridlab::taylor_attention_backward", mutates_args={})
def _gradients(queries: Tensor, keys: Tensor, values: Tensor, d_o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys, values, d_o = queries.contiguous(), keys.contiguous(), values.contiguous(), d_o.contiguous()
    d_queries, d_keys, d_values = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    (rows, t, width), d = values.shape, queries.shape[-1]
    launcher(_queries_kernel)[(triton.cdiv(t, 128), rows)](
        queries, keys, values, d_o, d_queries, t, d, width,
        block=128, step=64, narrow=NARROW, wide=WIDE, num_warps=8, num_stages=3,
    )  # fmt: skip
    launcher(_keys_kernel)[(triton.cdiv(t, 128), rows)](
        queries, keys, values, d_o, d_keys, d_values, t, d, width,
        block=128, step=64, narrow=NARROW, wide=WIDE, num_warps=8, num_stages=3,
    )  # fmt: skip
    return d_queries, d_keys, d_values


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, d_o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(*ctx.saved_tensors, d_o)


attend.register_autograd(_backward, setup_context=_save)
