"""Elementwise linear recurrence: h_t = exp(g_t) ⊙ h_{t-1} + x_t, one decay per channel and token.

Letters: b batch, t time, d channels.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from hybridlab.ops.kernels.dispatch import can_use_float32_kernel
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.precision import accumulation_dtype, autocast_off

MAX_SEQUENTIAL_STEPS = 8  # up to here, splitting into chunks would cost more than it saves


def recurrent_elementwise_scan(
    x: Float[Tensor, "b t d"], log_decay: Float[Tensor, "b t d"], initial_state: Float[Tensor, "b d"] | None = None
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d"]]:
    """Compute the op from its definition, step by step.

    Return all states, and the last in at least float32.
    """
    with autocast_off(x):
        dtype = accumulation_dtype(x)
        state = torch.zeros_like(x[:, 0], dtype=dtype) if initial_state is None else initial_state.to(dtype)
        states = []
        for token, decay in zip(x.to(dtype).unbind(1), log_decay.to(dtype).exp().unbind(1), strict=True):
            state = decay * state + token
            states.append(state)
        return torch.stack(states, dim=1).to(x.dtype), state


def elementwise_scan(
    x: Float[Tensor, "b t d"], log_decay: Float[Tensor, "b t d"], initial_state: Float[Tensor, "b d"] | None = None
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b d"]]:
    """Compute `recurrent_elementwise_scan` in about 2√t dependent steps; log_decay <= 0."""
    with autocast_off(x):
        dtype = accumulation_dtype(x)
        initial_state = torch.zeros_like(x[:, 0], dtype=dtype) if initial_state is None else initial_state.to(dtype)
        wide = x.to(dtype)
        states = (_run_kernels if can_use_float32_kernel(wide) else _scan)(wide, log_decay.to(dtype), initial_state)
        return states.to(x.dtype), states[:, -1]


@compiled_at_once
def _run_kernels(x: Tensor, log_decay: Tensor, initial_state: Tensor) -> Tensor:
    from hybridlab.ops.kernels.elementwise_scan import scan

    return scan(x, log_decay, initial_state)


# A custom operator: a compiler treats it as one node instead of tracing the steps, and its
# handwritten gradient saves none of the intermediate steps.
@torch.library.custom_op("hybridlab::elementwise_scan", mutates_args=())
def _scan(x: Tensor, log_decay: Tensor, initial_state: Tensor) -> Tensor:
    return _scan_chunks(x, log_decay.exp(), initial_state)


@_scan.register_fake
def _(x: Tensor, log_decay: Tensor, initial_state: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def _scan_chunks(
    x: Float[Tensor, "b t d"], decay: Float[Tensor, "b t d"], initial_state: Float[Tensor, "b d"]
) -> Float[Tensor, "b t d"]:
    """Run √t chunks in parallel from zero states, and scan over their final states.

    The decayed chunk starts are then added to all states of each chunk.

    Products of decays can underflow to zero. That is harmless, because nothing is divided by them.
    """
    t = x.shape[1]
    if t <= MAX_SEQUENTIAL_STEPS:
        states = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        state = initial_state
        for i in range(t):
            state = torch.addcmul(x[:, i], decay[:, i], state, out=states[:, i])
        return states
    chunk = math.ceil(math.sqrt(t))
    missing = -t % chunk
    x, decay = (F.pad(each, (0, 0, 0, missing)).unflatten(1, (-1, chunk)) for each in (x, decay))  # b n c d
    states, cum_decay = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    states[:, :, 0], cum_decay[:, :, 0] = x[:, :, 0], decay[:, :, 0]
    for i in range(1, chunk):
        torch.addcmul(x[:, :, i], decay[:, :, i], states[:, :, i - 1], out=states[:, :, i])
        torch.mul(decay[:, :, i], cum_decay[:, :, i - 1], out=cum_decay[:, :, i])
    chunk_ends = _scan_chunks(states[:, :, -1], cum_decay[:, :, -1], initial_state)
    chunk_starts = torch.cat([initial_state[:, None], chunk_ends[:, :-1]], dim=1)
    states.addcmul_(cum_decay, chunk_starts[:, :, None])
    return states.flatten(1, 2)[:, :t].clone(memory_format=torch.contiguous_format) if missing else states.flatten(1, 2)


def _setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1], inputs[2], output)


def _backward(ctx: torch.autograd.function.FunctionCtx, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients from the adjoint, which is the same recurrence in reverse.

    λ_t = ∂h_t + exp(g_{t+1}) ⊙ λ_{t+1}.
    """
    log_decay, initial_state, states = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    next_log_decay = F.pad(log_decay[:, 1:], (0, 0, 0, 1))
    adjoint = _scan(grad_states.flip(1), next_log_decay.flip(1), torch.zeros_like(initial_state)).flip(1)
    previous_states = torch.cat([initial_state[:, None], states[:, :-1]], dim=1)
    grad_previous = adjoint * log_decay.exp()
    return adjoint, grad_previous * previous_states, grad_previous[:, 0]


_scan.register_autograd(_backward, setup_context=_setup_context)
