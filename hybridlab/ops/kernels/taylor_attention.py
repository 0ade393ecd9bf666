"""GPU kernels for causal attention with the weights 1 + s + s²/2.

Products of a block of queries and a block of keys stay in registers and are recomputed in the
backward pass. Each query's sum of weights is returned beside its weighted sum of values.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher

# On Hopper, products of fewer columns are wrong if the first factor is in registers (see
# `chunk_recurrence`).
MIN_COLUMNS = 64


@triton.jit
def _vectors(pointer, seq, tokens, t, width, columns: tl.constexpr):
    """Load the vectors of these tokens of a sequence, zeros beyond its end."""
    c = tl.arange(0, columns)
    mask = (tokens < t)[:, None] & (c < width)[None, :]
    return tl.load(pointer + (seq * t + tokens)[:, None] * width + c[None, :], mask=mask, other=0.0)


@triton.jit
def _store(pointer, acc, seq, tokens, t, width, columns: tl.constexpr):
    c = tl.arange(0, columns)
    mask = (tokens < t)[:, None] & (c < width)[None, :]
    offset = pointer + (seq * t + tokens)[:, None] * width + c[None, :]
    tl.store(offset, acc.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _outputs_kernel(
    queries, keys, values, o, sums, t, d, width,
    block: tl.constexpr, step: tl.constexpr, key_columns: tl.constexpr, value_columns: tl.constexpr,
):  # fmt: skip
    first, seq = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    i = first + tl.arange(0, block)
    query = _vectors(queries, seq, i, t, d, key_columns)
    acc, total = tl.zeros([block, value_columns], tl.float32), tl.zeros([block], tl.float32)
    for start in range(0, first + block, step):
        j = start + tl.arange(0, step)
        s = tl.dot(query, tl.trans(_vectors(keys, seq, j, t, d, key_columns)))
        weights = tl.where(i[:, None] >= j[None, :], 1 + s * (1 + 0.5 * s), 0.0)
        total += tl.sum(weights, 1)
        acc = tl.dot(weights.to(query.dtype), _vectors(values, seq, j, t, width, value_columns), acc=acc)
    _store(o, acc, seq, i, t, width, value_columns)
    tl.store(sums + seq * t + i, total, mask=i < t)


@triton.jit
def _queries_kernel(
    queries, keys, values, d_o, d_sums, d_queries, t, d, width,
    block: tl.constexpr, step: tl.constexpr,
    key_columns: tl.constexpr, grad_columns: tl.constexpr, value_columns: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a block of queries."""
    first, seq = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    i = first + tl.arange(0, block)
    query, grad_o = _vectors(queries, seq, i, t, d, key_columns), _vectors(d_o, seq, i, t, width, value_columns)
    grad_sum = tl.load(d_sums + seq * t + i, mask=i < t, other=0.0)
    acc = tl.zeros([block, grad_columns], tl.float32)
    for start in range(0, first + block, step):
        j = start + tl.arange(0, step)
        s = tl.dot(query, tl.trans(_vectors(keys, seq, j, t, d, key_columns)))
        d_weights = tl.dot(grad_o, tl.trans(_vectors(values, seq, j, t, width, value_columns))) + grad_sum[:, None]
        d_s = tl.where((i[:, None] >= j[None, :]) & (j < t)[None, :], d_weights * (1 + s), 0.0)
        acc = tl.dot(d_s.to(query.dtype), _vectors(keys, seq, j, t, d, grad_columns), acc=acc)
    _store(d_queries, acc, seq, i, t, d, grad_columns)


@triton.jit
def _keys_kernel(
    queries, keys, values, d_o, d_sums, d_keys, d_values, t, d, width,
    block: tl.constexpr, step: tl.constexpr,
    key_columns: tl.constexpr, grad_columns: tl.constexpr, value_columns: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of a block of keys and its values."""
    first, seq = tl.program_id(0) * block, tl.program_id(1).to(tl.int64)
    j = first + tl.arange(0, block)
    key, value = _vectors(keys, seq, j, t, d, key_columns), _vectors(values, seq, j, t, width, value_columns)
    grad_key, grad_value = tl.zeros([block, grad_columns], tl.float32), tl.zeros([block, value_columns], tl.float32)
    for start in range(first, t, step):
        i = start + tl.arange(0, step)
        grad_o, grad_sum = (
            _vectors(d_o, seq, i, t, width, value_columns),
            tl.load(d_sums + seq * t + i, mask=i < t, other=0.0),
        )
        s = tl.dot(key, tl.trans(_vectors(queries, seq, i, t, d, key_columns)))
        seen = i[None, :] >= j[:, None]
        weights = tl.where(seen, 1 + s * (1 + 0.5 * s), 0.0)
        grad_value = tl.dot(weights.to(key.dtype), grad_o, acc=grad_value)
        d_weights = tl.dot(value, tl.trans(grad_o)) + grad_sum[None, :]
        d_s = tl.where(seen, d_weights * (1 + s), 0.0)
        grad_key = tl.dot(d_s.to(key.dtype), _vectors(queries, seq, i, t, d, grad_columns), acc=grad_key)
    _store(d_keys, grad_key, seq, j, t, d, grad_columns)
    _store(d_values, grad_value, seq, j, t, width, value_columns)


@triton_op("hybridlab::taylor_attention", mutates_args={})
def attend(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return Σ_{j<=i} w_ij v_j [r t v] and Σ_{j<=i} w_ij [r t] in float32, w_ij = 1 + s_ij +
    s_ij²/2 and s = q·k.

    Queries and keys [r t d] and values [r t v] are in half precision; d is at most 64, v at most
    128.
    """
    queries, keys, values = queries.contiguous(), keys.contiguous(), values.contiguous()
    (seqs, t, width), d = values.shape, queries.shape[-1]
    o, sums = torch.empty_like(values), values.new_empty(seqs, t, dtype=torch.float32)
    launcher(_outputs_kernel)[(triton.cdiv(t, 128), seqs)](
        queries, keys, values, o, sums, t, d, width,
        block=128, step=64, key_columns=_key_columns(d), value_columns=_value_columns(width), num_warps=8, num_stages=3,
    )  # fmt: skip
    return o, sums


@triton_op("hybridlab::taylor_attention_backward", mutates_args={})
def _gradients(
    queries: Tensor, keys: Tensor, values: Tensor, d_o: Tensor, d_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys, values, d_o, d_sums = (x.contiguous() for x in (queries, keys, values, d_o, d_sums))
    d_queries, d_keys, d_values = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    (seqs, t, width), d = values.shape, queries.shape[-1]
    columns = {"key_columns": _key_columns(d), "grad_columns": MIN_COLUMNS, "value_columns": _value_columns(width)}
    form = {"block": 64, "step": 64, **columns}
    launcher(_queries_kernel)[(triton.cdiv(t, 64), seqs)](
        queries, keys, values, d_o, d_sums, d_queries, t, d, width, **form, num_warps=4, num_stages=3
    )
    launcher(_keys_kernel)[(triton.cdiv(t, 64), seqs)](
        queries, keys, values, d_o, d_sums, d_keys, d_values, t, d, width, **form, num_warps=4, num_stages=3
    )
    return d_queries, d_keys, d_values


def _key_columns(d: int) -> int:
    return max(16, triton.next_power_of_2(d))


def _value_columns(width: int) -> int:
    return max(MIN_COLUMNS, triton.next_power_of_2(width))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, d_o: Tensor, d_sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(*ctx.saved_tensors, d_o, d_sums)


attend.register_autograd(_backward, setup_context=_save)
