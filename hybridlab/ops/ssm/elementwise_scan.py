"""Elementwise linear recurrence: h_t = exp(g_t) ⊙ h_{t-1} + x_t, one decay per channel and token.

Letters: b batch, t time, d channels.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.kernels.dispatch import wide_kernel_serves
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.precision import accumulation_dtype, autocast_off

# So few steps are taken one by one: cutting them up would cost more than it saves.
FEW = 8


def recurrent_elementwise_scan(
    x: Float[Tensor, "b t d"], log_decay: Float[Tensor, "b t d"], start: Float[Tensor, "b d"] | None = None
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d"]]:
    """Step through the recurrence: the definition of the op. Return all states, and the last in float32 at least."""
    with autocast_off(x):
        dtype = accumulation_dtype(x)
        state = torch.zeros_like(x[:, 0], dtype=dtype) if start is None else start.to(dtype)
        states = []
        for step, decay in zip(x.to(dtype).unbind(1), log_decay.to(dtype).exp().unbind(1), strict=True):
            state = decay * state + step
            states.append(state)
        return torch.stack(states, dim=1).to(x.dtype), state


def elementwise_scan(
    x: Float[Tensor, "b t d"], log_decay: Float[Tensor, "b t d"], start: Float[Tensor, "b d"] | None = None
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d"]]:
    """Give what `recurrent_elementwise_scan` gives in about 2√t dependent steps instead of t; log_decay <= 0."""
    with autocast_off(x):
        dtype = accumulation_dtype(x)
        start = torch.zeros_like(x[:, 0], dtype=dtype) if start is None else start.to(dtype)
        wide = x.to(dtype)
        states = (_by_kernels if wide_kernel_serves(wide) else _scan)(wide, log_decay.to(dtype), start)
        return states.to(x.dtype), states[:, -1]


@compiled_at_once
def _by_kernels(x: Tensor, log_decay: Tensor, start: Tensor) -> Tensor:
    from hybridlab.ops.kernels.elementwise_scan import scan

    return scan(x, log_decay, start)


# An operator of its own: a compiler takes it as one node instead of tracing the steps, and its gradient is written by
# hand, so that nothing of the steps is kept.
@torch.library.custom_op("hybridlab::elementwise_scan", mutates_args=())
def _scan(x: Tensor, log_decay: Tensor, start: Tensor) -> Tensor:
    return _in_chunks(x, log_decay.exp(), start)


@_scan.register_fake
def _(x: Tensor, log_decay: Tensor, start: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _in_chunks(
    x: Float[Tensor, "b t d"], decay: Float[Tensor, "b t d"], start: Float[Tensor, "b d"]
) -> Float[Tensor, "b t d"]:
    """Run √t chunks side by side from zero; a scan over their ends gives each its start, which the decays carry in.

    Products of decays may underflow to zero, which is what is left then; nothing is divided by them.
    """
    t = x.shape[1]
    if t <= FEW:
        states = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        state = start
        for i in range(t):
            state = torch.addcmul(x[:, i], decay[:, i], state, out=states[:, i])
        return states
    chunk = math.ceil(math.sqrt(t))
    missing = -t % chunk
    x, decay = (F.pad(each, (0, 0, 0, missing)).unflatten(1, (-1, chunk)) for each in (x, decay))  # b n c d
    states, left = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    states[:, :, 0], left[:, :, 0] = x[:, :, 0], decay[:, :, 0]
    for i in range(1, chunk):
        torch.addcmul(x[:, :, i], decay[:, :, i], states[:, :, i - 1], out=states[:, :, i])
        torch.mul(decay[:, :, i], left[:, :, i - 1], out=left[:, :, i])
    ends = _in_chunks(states[:, :, -1], left[:, :, -1], start)
    starts = torch.cat([start[:, None], ends[:, :-1]], dim=1)
    states.addcmul_(left, starts[:, :, None])
    return states.flatten(1, 2)[:, :t].clone(memory_format=torch.contiguous_format) if missing else states.flatten(1, 2)


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1], inputs[2], output)


def _gradients(ctx: torch.autograd.function.FunctionCtx, into: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The adjoint is the same recurrence, backwards: λ_t = ∂h_t + exp(g_{t+1}) ⊙ λ_{t+1}."""
    log_decay, start, states = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    later = F.pad(log_decay[:, 1:], (0, 0, 0, 1))
    adjoint = _scan(into.flip(1), later.flip(1), torch.zeros_like(start)).flip(1)
    before = torch.cat([start[:, None], states[:, :-1]], dim=1)
    carried = adjoint * log_decay.exp()
    return adjoint, carried * before, carried[:, 0]


_scan.register_autograd(_gradients, setup_context=_remember)
