"""The WY form of the delta rule's chunks as GPU kernels: one program a chunk, forward and backward."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op

from hybridlab.ops.kernels.launch import launcher
from hybridlab.ops.kernels.triangular_inverse import inverse


@triton.jit
def _tile(pointer, rows: tl.constexpr, columns: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * rows * columns
    return pointer + at + tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]


@triton.jit
def _forward_kernel(keys, values, beta, left, inverses, w, u, k: tl.constexpr, v: tl.constexpr):
    i = tl.arange(0, 64)
    place = tl.program_id(0).to(tl.int64) * 64 + i
    key, b, g = tl.load(_tile(keys, 64, k)), tl.load(beta + place), tl.load(left + place)
    weight = tl.exp(tl.where(i[:, None] > i[None, :], g[:, None] - g[None, :], float("-inf")))
    t = inverse(tl.dot(key, tl.trans(key)) * weight * b[:, None]).to(key.dtype)
    tl.store(_tile(inverses, 64, 64), t)
    tl.store(_tile(w, 64, k), tl.dot(t, (key * (b * tl.exp(g))[:, None]).to(key.dtype)).to(key.dtype))
    value = (tl.load(_tile(values, 64, v)) * b[:, None]).to(key.dtype)
    tl.store(_tile(u, 64, v), tl.dot(t, value).to(key.dtype))


@triton.jit
def _backward_kernel(
    keys, values, beta, left, inverse, d_w, d_u, d_keys, d_values, d_beta, d_left,
    c: tl.constexpr, k: tl.constexpr, v: tl.constexpr,
):  # fmt: skip
    i = tl.arange(0, c)
    place = tl.program_id(0).to(tl.int64) * c + i
    key, value = tl.load(_tile(keys, c, k)), tl.load(_tile(values, c, v))
    b, g, t = tl.load(beta + place), tl.load(left + place), tl.load(_tile(inverse, c, c))
    dw, du = tl.load(_tile(d_w, c, k)), tl.load(_tile(d_u, c, v))
    kept = tl.exp(g)
    # Through the products with the inverse T.
    scaled_key, scaled_value = (key * (b * kept)[:, None]).to(key.dtype), (value * b[:, None]).to(key.dtype)
    # Both d T and its transpose are made of what was loaded, because a product is never transposed to enter another one:
    # on Hopper, Triton 3.4 to 3.7 then multiplies wrongly.
    d_inverse = tl.dot(dw, tl.trans(scaled_key)) + tl.dot(du, tl.trans(scaled_value))
    turned = tl.dot(scaled_key, tl.trans(dw)) + tl.dot(scaled_value, tl.trans(du))
    d_scaled_key, d_scaled_value = tl.dot(tl.trans(t), dw), tl.dot(tl.trans(t), du)
    tl.store(_tile(d_values, c, v), (d_scaled_value * b[:, None]).to(key.dtype))
    db = tl.sum(d_scaled_value * value, 1) + tl.sum(d_scaled_key * key, 1) * kept
    dg = tl.sum(d_scaled_key * key, 1) * b * kept
    # Through the inverse: -Tᵀ dT Tᵀ, below the diagonal, times what weighs the products of keys.
    wide = t.to(tl.float32)
    d_a = tl.dot(tl.dot(tl.trans(wide), d_inverse, input_precision="tf32"), tl.trans(wide), input_precision="tf32")
    d_turned = tl.dot(wide, tl.dot(turned, wide, input_precision="tf32"), input_precision="tf32")
    by_product = -d_a * tl.exp(tl.where(i[:, None] > i[None, :], g[:, None] - g[None, :], float("-inf")))
    by_turned = -d_turned * tl.exp(tl.where(i[None, :] > i[:, None], g[None, :] - g[:, None], float("-inf")))
    # Through a_ij = β_i exp(g_i - g_j) k_i·k_j.
    share = by_product * tl.dot(key, tl.trans(key))
    db += tl.sum(share, 1)
    dg += tl.sum(share * b[:, None], 1) - tl.sum(share * b[:, None], 0)
    d_product, d_turned = (by_product * b[:, None]).to(key.dtype), (by_turned * b[None, :]).to(key.dtype)
    d_key = tl.dot(d_product, key) + tl.dot(d_turned, key) + d_scaled_key * (b * kept)[:, None]
    tl.store(_tile(d_keys, c, k), d_key.to(key.dtype))
    tl.store(d_beta + place, db)
    tl.store(d_left + place, dg)


@triton_op("hybridlab::wy_form", mutates_args={})
def wy_form(keys: Tensor, values: Tensor, beta: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return W [r c k] and U [r c v] of r chunks of c = 64 tokens, and the inverse [r c c] that made them.

    Keys [r c k] and values [r c v] in half precision, beta and left [r c] in float32; k and v are powers of two.
    """
    keys, values, beta, left = (x.contiguous() for x in (keys, values, beta, left))
    (rows, c, k), v = keys.shape, values.shape[-1]
    inverses = keys.new_empty(rows, c, c)
    w, u = torch.empty_like(keys), torch.empty_like(values)
    launcher(_forward_kernel)[(rows,)](
        keys, values, beta, left, inverses, w, u, k=k, v=v, num_warps=_warps(k, v), num_stages=1
    )
    return w, u, inverses


@triton_op("hybridlab::wy_form_backward", mutates_args={})
def _wy_form_backward(
    keys: Tensor, values: Tensor, beta: Tensor, left: Tensor, inverse: Tensor, d_w: Tensor, d_u: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    keys, values, beta, left, d_w, d_u = (x.contiguous() for x in (keys, values, beta, left, d_w, d_u))
    (rows, c, k), v = keys.shape, values.shape[-1]
    d_keys, d_values = torch.empty_like(keys), torch.empty_like(values)
    d_beta, d_left = torch.empty_like(beta), torch.empty_like(left)
    launcher(_backward_kernel)[(rows,)](
        keys, values, beta, left, inverse, d_w, d_u, d_keys, d_values, d_beta, d_left,
        c=c, k=k, v=v, num_warps=_warps(k, v), num_stages=1,
    )  # fmt: skip
    return d_keys, d_values, d_beta, d_left


def _warps(k: int, v: int) -> int:
    """Four warps take Hopper's instruction for whole groups of warps, which is wrong for narrow products (see
    `chunk_recurrence_triton`); two never do."""
    return 4 if min(k, v) >= 64 else 2


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[2])


def _backward(ctx: Any, d_w: Tensor, d_u: Tensor, _d_inverse: Tensor) -> tuple[Tensor, ...]:
    return _wy_form_backward(*ctx.saved_tensors, d_w, d_u)


wy_form.register_autograd(_backward, setup_context=_save)
