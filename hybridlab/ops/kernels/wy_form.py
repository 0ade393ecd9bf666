"""GPU kernels for the WY form of the delta rule's chunks: one program per chunk, forward and
backward."""

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
    start = tl.program_id(0).to(tl.int64) * rows * columns
    return pointer + start + tl.arange(0, rows)[:, None] * columns + tl.arange(0, columns)[None, :]


@triton.jit
def _forward_kernel(keys, values, beta, cum_log_decay, inverses, w, u, k: tl.constexpr, v: tl.constexpr):
    i = tl.arange(0, 64)
    offset = tl.program_id(0).to(tl.int64) * 64 + i
    key, b, g = tl.load(_tile(keys, 64, k)), tl.load(beta + offset), tl.load(cum_log_decay + offset)
    weight = tl.exp(tl.where(i[:, None] > i[None, :], g[:, None] - g[None, :], float("-inf")))
    t = inverse(tl.dot(key, tl.trans(key)) * weight * b[:, None]).to(key.dtype)
    tl.store(_tile(inverses, 64, 64), t)
    tl.store(_tile(w, 64, k), tl.dot(t, (key * (b * tl.exp(g))[:, None]).to(key.dtype)).to(key.dtype))
    value = (tl.load(_tile(values, 64, v)) * b[:, None]).to(key.dtype)
    tl.store(_tile(u, 64, v), tl.dot(t, value).to(key.dtype))


@triton.jit
def _backward_kernel(
    keys, values, beta, cum_log_decay, inverse, d_w, d_u, d_keys, d_values, d_beta, d_cum_log_decay,
    c: tl.constexpr, k: tl.constexpr, v: tl.constexpr,
):  # fmt: skip
    i = tl.arange(0, c)
    offset = tl.program_id(0).to(tl.int64) * c + i
    key, value = tl.load(_tile(keys, c, k)), tl.load(_tile(values, c, v))
    b, g, t = tl.load(beta + offset), tl.load(cum_log_decay + offset), tl.load(_tile(inverse, c, c))
    grad_w, grad_u = tl.load(_tile(d_w, c, k)), tl.load(_tile(d_u, c, v))
    decay = tl.exp(g)
    # Gradients through the products with the inverse T.
    scaled_key, scaled_value = (key * (b * decay)[:, None]).to(key.dtype), (value * b[:, None]).to(key.dtype)
    # dT and its transpose are both computed from loaded values: a product is never transposed to
    # enter another one, because on Hopper, Triton 3.4 to 3.7 then multiplies wrongly.
    d_inverse = tl.dot(grad_w, tl.trans(scaled_key)) + tl.dot(grad_u, tl.trans(scaled_value))
    d_inverse_t = tl.dot(scaled_key, tl.trans(grad_w)) + tl.dot(scaled_value, tl.trans(grad_u))
    d_scaled_key, d_scaled_value = tl.dot(tl.trans(t), grad_w), tl.dot(tl.trans(t), grad_u)
    tl.store(_tile(d_values, c, v), (d_scaled_value * b[:, None]).to(key.dtype))
    grad_beta = tl.sum(d_scaled_value * value, 1) + tl.sum(d_scaled_key * key, 1) * decay
    grad_decay = tl.sum(d_scaled_key * key, 1) * b * decay
    # Through the inverse: -Tᵀ dT Tᵀ, below the diagonal, times the decays between the keys.
    t32 = t.to(tl.float32)
    d_a = tl.dot(tl.dot(tl.trans(t32), d_inverse, input_precision="tf32"), tl.trans(t32), input_precision="tf32")
    d_transposed = tl.dot(t32, tl.dot(d_inverse_t, t32, input_precision="tf32"), input_precision="tf32")
    by_product = -d_a * tl.exp(tl.where(i[:, None] > i[None, :], g[:, None] - g[None, :], float("-inf")))
    by_transposed = -d_transposed * tl.exp(tl.where(i[None, :] > i[:, None], g[None, :] - g[:, None], float("-inf")))
    # Through a_ij = β_i exp(g_i - g_j) k_i·k_j.
    d_scores = by_product * tl.dot(key, tl.trans(key))
    grad_beta += tl.sum(d_scores, 1)
    grad_decay += tl.sum(d_scores * b[:, None], 1) - tl.sum(d_scores * b[:, None], 0)
    d_product, d_transposed = (by_product * b[:, None]).to(key.dtype), (by_transposed * b[None, :]).to(key.dtype)
    grad_key = tl.dot(d_product, key) + tl.dot(d_transposed, key) + d_scaled_key * (b * decay)[:, None]
    tl.store(_tile(d_keys, c, k), grad_key.to(key.dtype))
    tl.store(d_beta + offset, grad_beta)
    tl.store(d_cum_log_decay + offset, grad_decay)


@triton_op("hybridlab::wy_form", mutates_args={})
def wy_form(keys: Tensor, values: Tensor, beta: Tensor, cum_log_decay: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return W [r c k] and U [r c v] of r chunks of c = 64 tokens, and the inverse [r c c] that
    gave them.

    Keys [r c k] and values [r c v] are in half precision, beta and cum_log_decay [r c] in float32;
    k and v are powers of two.
    """
    keys, values, beta, cum_log_decay = (x.contiguous() for x in (keys, values, beta, cum_log_decay))
    (chunks, c, k), v = keys.shape, values.shape[-1]
    inverses = keys.new_empty(chunks, c, c)
    w, u = torch.empty_like(keys), torch.empty_like(values)
    launcher(_forward_kernel)[(chunks,)](
        keys, values, beta, cum_log_decay, inverses, w, u, k=k, v=v, num_warps=_warps(k, v), num_stages=1
    )
    return w, u, inverses


@triton_op("hybridlab::wy_form_backward", mutates_args={})
def _wy_form_backward(
    keys: Tensor, values: Tensor, beta: Tensor, cum_log_decay: Tensor, inverse: Tensor, d_w: Tensor, d_u: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    keys, values, beta, cum_log_decay, d_w, d_u = (
        x.contiguous() for x in (keys, values, beta, cum_log_decay, d_w, d_u)
    )
    (chunks, c, k), v = keys.shape, values.shape[-1]
    d_keys, d_values = torch.empty_like(keys), torch.empty_like(values)
    d_beta, d_cum_log_decay = torch.empty_like(beta), torch.empty_like(cum_log_decay)
    launcher(_backward_kernel)[(chunks,)](
        keys, values, beta, cum_log_decay, inverse, d_w, d_u, d_keys, d_values, d_beta, d_cum_log_decay,
        c=c, k=k, v=v, num_warps=_warps(k, v), num_stages=1,
    )  # fmt: skip
    return d_keys, d_values, d_beta, d_cum_log_decay


def _warps(k: int, v: int) -> int:
    """Return 2 for narrow products: with 4 warps, Triton uses Hopper's warp-group instruction,
    which is wrong for them (see `MIN_COLUMNS` in `chunk_recurrence`)."""
    return 4 if min(k, v) >= 64 else 2


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, output[2])


def _backward(ctx: Any, d_w: Tensor, d_u: Tensor, _d_inverse: Tensor) -> tuple[Tensor, ...]:
    return _wy_form_backward(*ctx.saved_tensors, d_w, d_u)


wy_form.register_autograd(_backward, setup_context=_save)
