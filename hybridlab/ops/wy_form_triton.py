"""The WY form of the delta rule's chunks as GPU kernels: one program a chunk, forward and backward."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

WARPS = 2  # per chunk: 1 and 4 took 0.67 and 0.57 ms where 2 took 0.34 (H100, 8,192 chunks)


@triton.jit
def _tile(pointer, rows: tl.constexpr, columns: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * rows * columns
    return pointer + at + tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]


@triton.jit
def _product(a, b):
    """Multiply small blocks almost in float32: where keys repeat, the inverse is made of small differences."""
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def _block_inverse(a, size: tl.constexpr):
    """Return (I + the strictly lower part of a)⁻¹ for a block of 16, by doubling the size of what is inverted."""
    i = tl.arange(0, size)
    joins = (i[:, None] == i[None, :] + 1) & (i[None, :] % 2 == 0)
    found = tl.where(i[:, None] == i[None, :], 1.0, tl.where(joins, -a, 0.0))
    for level in tl.static_range(1, 4):
        block = i // (1 << level)
        joins = (block[:, None] == block[None, :] + 1) & (block[None, :] % 2 == 0)
        found -= _product(found, _product(tl.where(joins, a, 0.0), found))
    return found


@triton.jit
def _own_inverse(key, b, g, size: tl.constexpr):
    """Return (I + A)⁻¹ of a block of tokens on the diagonal, by doubling the size of what is inverted."""
    i = tl.arange(0, size)
    weight = tl.exp(tl.where(i[:, None] > i[None, :], g[:, None] - g[None, :], float("-inf")))
    a = tl.dot(key, tl.trans(key)) * weight * b[:, None]
    return _block_inverse(a, size)


@triton.jit
def _between(later, earlier, b, g_later, g_earlier):
    """Return the block of A that leads from earlier tokens to later ones."""
    return tl.dot(later, tl.trans(earlier)) * tl.exp(g_later[:, None] - g_earlier[None, :]) * b[:, None]


@triton.jit
def _block(pointer, row: tl.constexpr, column: tl.constexpr, stride: tl.constexpr, width: tl.constexpr):
    """Point at 16 tokens of this program's chunk, from a row and a column on."""
    at = tl.program_id(0).to(tl.int64) * 64 * stride
    return pointer + at + (row + tl.arange(0, 16))[:, None] * stride + column + tl.arange(0, width)[None, :]


@triton.jit
def _forward_kernel(keys, values, beta, left, inverse, w, u, k: tl.constexpr, v: tl.constexpr):
    """Invert I + A by four blocks of 16 tokens, then multiply; what lies above the diagonal of `inverse` is not written."""
    dtype = keys.dtype.element_ty
    place = tl.program_id(0).to(tl.int64) * 64 + tl.arange(0, 16)
    b0, b1 = tl.load(beta + place), tl.load(beta + place + 16)
    b2, b3 = tl.load(beta + place + 32), tl.load(beta + place + 48)
    g0, g1 = tl.load(left + place), tl.load(left + place + 16)
    g2, g3 = tl.load(left + place + 32), tl.load(left + place + 48)
    k0, k1 = tl.load(_block(keys, 0, 0, k, k)), tl.load(_block(keys, 16, 0, k, k))
    k2, k3 = tl.load(_block(keys, 32, 0, k, k)), tl.load(_block(keys, 48, 0, k, k))
    t00, t11 = _own_inverse(k0, b0, g0, 16), _own_inverse(k1, b1, g1, 16)
    t22, t33 = _own_inverse(k2, b2, g2, 16), _own_inverse(k3, b3, g3, 16)
    a10, a21, a32 = _between(k1, k0, b1, g1, g0), _between(k2, k1, b2, g2, g1), _between(k3, k2, b3, g3, g2)
    a20, a31, a30 = _between(k2, k0, b2, g2, g0), _between(k3, k1, b3, g3, g1), _between(k3, k0, b3, g3, g0)
    t10, t21, t32 = (
        -_product(t11, _product(a10, t00)),
        -_product(t22, _product(a21, t11)),
        -_product(t33, _product(a32, t22)),
    )
    t20 = -_product(t22, _product(a20, t00) + _product(a21, t10))
    t31 = -_product(t33, _product(a31, t11) + _product(a32, t21))
    t30 = -_product(t33, _product(a30, t00) + _product(a31, t10) + _product(a32, t20))
    t00, t11, t22, t33 = t00.to(dtype), t11.to(dtype), t22.to(dtype), t33.to(dtype)
    t10, t21, t32, t20, t31, t30 = (
        t10.to(dtype),
        t21.to(dtype),
        t32.to(dtype),
        t20.to(dtype),
        t31.to(dtype),
        t30.to(dtype),
    )
    tl.store(_block(inverse, 0, 0, 64, 16), t00)
    tl.store(_block(inverse, 16, 0, 64, 16), t10)
    tl.store(_block(inverse, 16, 16, 64, 16), t11)
    tl.store(_block(inverse, 32, 0, 64, 16), t20)
    tl.store(_block(inverse, 32, 16, 64, 16), t21)
    tl.store(_block(inverse, 32, 32, 64, 16), t22)
    tl.store(_block(inverse, 48, 0, 64, 16), t30)
    tl.store(_block(inverse, 48, 16, 64, 16), t31)
    tl.store(_block(inverse, 48, 32, 64, 16), t32)
    tl.store(_block(inverse, 48, 48, 64, 16), t33)
    k0, k1 = (k0 * (b0 * tl.exp(g0))[:, None]).to(dtype), (k1 * (b1 * tl.exp(g1))[:, None]).to(dtype)
    k2, k3 = (k2 * (b2 * tl.exp(g2))[:, None]).to(dtype), (k3 * (b3 * tl.exp(g3))[:, None]).to(dtype)
    tl.store(_block(w, 0, 0, k, k), tl.dot(t00, k0).to(dtype))
    tl.store(_block(w, 16, 0, k, k), tl.dot(t11, k1, acc=tl.dot(t10, k0)).to(dtype))
    tl.store(_block(w, 32, 0, k, k), tl.dot(t22, k2, acc=tl.dot(t21, k1, acc=tl.dot(t20, k0))).to(dtype))
    w3 = tl.dot(t33, k3, acc=tl.dot(t32, k2, acc=tl.dot(t31, k1, acc=tl.dot(t30, k0))))
    tl.store(_block(w, 48, 0, k, k), w3.to(dtype))
    v0 = (tl.load(_block(values, 0, 0, v, v)) * b0[:, None]).to(dtype)
    v1 = (tl.load(_block(values, 16, 0, v, v)) * b1[:, None]).to(dtype)
    v2 = (tl.load(_block(values, 32, 0, v, v)) * b2[:, None]).to(dtype)
    v3 = (tl.load(_block(values, 48, 0, v, v)) * b3[:, None]).to(dtype)
    tl.store(_block(u, 0, 0, v, v), tl.dot(t00, v0).to(dtype))
    tl.store(_block(u, 16, 0, v, v), tl.dot(t11, v1, acc=tl.dot(t10, v0)).to(dtype))
    tl.store(_block(u, 32, 0, v, v), tl.dot(t22, v2, acc=tl.dot(t21, v1, acc=tl.dot(t20, v0))).to(dtype))
    u3 = tl.dot(t33, v3, acc=tl.dot(t32, v2, acc=tl.dot(t31, v1, acc=tl.dot(t30, v0))))
    tl.store(_block(u, 48, 0, v, v), u3.to(dtype))


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
    d_inverse = tl.dot(dw, tl.trans(scaled_key)) + tl.dot(du, tl.trans(scaled_value))
    d_scaled_key, d_scaled_value = tl.dot(tl.trans(t), dw), tl.dot(tl.trans(t), du)
    tl.store(_tile(d_values, c, v), (d_scaled_value * b[:, None]).to(key.dtype))
    db = tl.sum(d_scaled_value * value, 1) + tl.sum(d_scaled_key * key, 1) * kept
    dg = tl.sum(d_scaled_key * key, 1) * b * kept
    # Through the inverse: -Tᵀ dT Tᵀ, below the diagonal.
    wide = t.to(tl.float32)
    half = tl.dot(tl.trans(wide), d_inverse, input_precision="tf32")
    d_a = tl.where(i[:, None] > i[None, :], -tl.dot(half, tl.trans(wide), input_precision="tf32"), 0.0)
    # Through a_ij = β_i exp(g_i - g_j) k_i·k_j.
    weight = tl.exp(tl.where(i[:, None] > i[None, :], g[:, None] - g[None, :], float("-inf")))
    by_product = d_a * weight
    share = by_product * tl.dot(key, tl.trans(key))
    db += tl.sum(share, 1)
    dg += tl.sum(share * b[:, None], 1) - tl.sum(share * b[:, None], 0)
    d_product = (by_product * b[:, None]).to(key.dtype)
    d_key = tl.dot(d_product, key) + tl.dot(tl.trans(d_product), key) + d_scaled_key * (b * kept)[:, None]
    tl.store(_tile(d_keys, c, k), d_key.to(key.dtype))
    tl.store(d_beta + place, db)
    tl.store(d_left + place, dg)


@triton_op("hybridlab::wy_form", mutates_args={})
def wy_form(keys: Tensor, values: Tensor, beta: Tensor, left: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return W [r c k] and U [r c v] of r chunks of c = 64 tokens, and the inverse [r c c] that made them.

    Keys [r c k] and values [r c v] in half precision, beta and left [r c] in float32; k and v are powers of two.
    """
    keys, values, beta, left = (x.contiguous() for x in (keys, values, beta, left))
    rows, c, k = keys.shape
    inverse = keys.new_zeros(rows, c, c)
    w, u = torch.empty_like(keys), torch.empty_like(values)
    wrap_triton(_forward_kernel)[(rows,)](
        keys, values, beta, left, inverse, w, u, k=k, v=values.shape[-1], num_warps=WARPS, num_stages=1
    )
    return w, u, inverse


@triton_op("hybridlab::wy_form_backward", mutates_args={})
def _wy_form_backward(
    keys: Tensor, values: Tensor, beta: Tensor, left: Tensor, inverse: Tensor, d_w: Tensor, d_u: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    keys, values, beta, left, d_w, d_u = (x.contiguous() for x in (keys, values, beta, left, d_w, d_u))
    rows, c, k = keys.shape
    d_keys, d_values = torch.empty_like(keys), torch.empty_like(values)
    d_beta, d_left = torch.empty_like(beta), torch.empty_like(left)
    wrap_triton(_backward_kernel)[(rows,)](
        keys, values, beta, left, inverse, d_w, d_u, d_keys, d_values, d_beta, d_left,
        c=c, k=k, v=values.shape[-1], num_warps=4, num_stages=1,
    )  # fmt: skip
    return d_keys, d_values, d_beta, d_left


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[2])


def _backward(ctx: Any, d_w: Tensor, d_u: Tensor, _d_inverse: Tensor) -> tuple[Tensor, ...]:
    return _wy_form_backward(*ctx.saved_tensors, d_w, d_u)


wy_form.register_autograd(_backward, setup_context=_save)
