"""Selective scan of a diagonal state space: S_t = exp(Δ_t A) ⊙ S_{t-1} + B_t u_tᵀ, y_t = S_tᵀ C_t.

Letters: b batch, t time, d channels, n state size per channel; k chunks of c tokens, blocks of m
tokens of each chunk.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from hybridlab.ops.kernels.dispatch import can_use_scan_kernel
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.precision import accumulation_dtype, autocast_off
from hybridlab.ops.ssm.elementwise_scan import elementwise_scan

# The maximal number of dependent steps; longer sequences are split into parallel chunks.
CHUNK = 64
# Tokens of each chunk whose independent operations run together; each block saves one state.
BLOCK = 8
# More than a few parallel chunks gain little speed, and all of them would need far more memory.
PARALLEL_CHUNKS, MAX_GROUPS = 8, 16


def recurrent_selective_scan(
    u: Float[Tensor, "b t d"],
    step: Float[Tensor, "b t d"],
    rate: Float[Tensor, "n d"],
    key: Float[Tensor, "b t n"],
    query: Float[Tensor, "b t n"],
    initial_state: Float[Tensor, "b n d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n d"]]:
    """Compute the op from its definition, step by step.

    `step` is Δ, `rate` is A, `key` and `query` are B and C.
    """
    with autocast_off(u):
        dtype = accumulation_dtype(u)
        inputs, step, rate, key, query = (each.to(dtype) for each in (u, step, rate, key, query))
        state = rate.new_zeros(len(u), *rate.shape) if initial_state is None else initial_state.to(dtype)
        outputs = []
        for i in range(u.shape[1]):
            state = (step[:, i, None, :] * rate).exp() * state + key[:, i, :, None] * inputs[:, i, None, :]
            outputs.append((query[:, i, :, None] * state).sum(1))
        return torch.stack(outputs, dim=1).to(u.dtype), state


def selective_scan(
    u: Float[Tensor, "b t d"],
    step: Float[Tensor, "b t d"],
    rate: Float[Tensor, "n d"],
    key: Float[Tensor, "b t n"],
    query: Float[Tensor, "b t n"],
    initial_state: Float[Tensor, "b n d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n d"]]:
    """Compute `recurrent_selective_scan` in a bounded number of dependent steps.

    Requires step·rate <= 0. The states of all tokens, n times the size of the input, are never in
    memory at once: the forward pass saves one per block (on a GPU, one per chunk), and the backward
    pass recomputes the others, as the paper's kernel does (2312.00752, section 3.3.2).
    """
    with autocast_off(u):
        dtype = accumulation_dtype(u)
        initial_state = (
            rate.new_zeros(len(u), *rate.shape, dtype=dtype) if initial_state is None else initial_state.to(dtype)
        )
        rate = rate.to(dtype)
        if can_use_scan_kernel(u, len(rate)):
            return _run_kernels(u, step, rate, key, query, initial_state)
        y, final_state, _ = _scan(u.to(dtype), step.to(dtype), rate, key.to(dtype), query.to(dtype), initial_state)
        return y.to(u.dtype), final_state


@compiled_at_once
def _run_kernels(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    from hybridlab.ops.kernels.selective_scan import scan

    return scan(u, step, rate, key, query, initial_state)[:2]


# A custom operator: a compiler treats it as one node instead of tracing the steps, and its
# handwritten gradient saves none of the intermediate steps.
@torch.library.custom_op("hybridlab::selective_scan", mutates_args=())
def _scan(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the outputs, the final state, and the state before each block."""
    t = u.shape[1]
    u, step, key, query = (_split_chunks(each) for each in (u, step, key, query))
    state = _chunk_starts(u, step, rate, key, initial_state)
    checkpoints, y = state.new_empty(len(_blocks(len(u))), *state.shape), torch.empty_like(u)
    for group in _groups(u):
        for block, block_start in zip(_blocks(len(u)), checkpoints, strict=True):
            index = block, slice(None), group
            block_start[:, group] = state[:, group]
            states = _scan_block(_outer(key[index], u[index]), _decays(step[index], rate), state[:, group])
            y[index] = (query[index].unsqueeze(-2) @ states).squeeze(-2)
            state[:, group] = states[-1]
    return _merge_chunks(y, t), state[:, -1].clone(), checkpoints


@_scan.register_fake
def _(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    chunk = _chunk_length(u.shape[1])
    checkpoints = initial_state.new_empty(len(_blocks(chunk)), u.shape[0], -(-u.shape[1] // chunk), *rate.shape)
    return u.new_empty(u.shape), initial_state.new_empty(initial_state.shape), checkpoints


@register_flop_formula(torch.ops.hybridlab.selective_scan)
def _(u: torch.Size, step: torch.Size, rate: torch.Size, *_: torch.Size, **__: object) -> int:
    """Count the product of states and queries.

    PyTorch's counter cannot see it inside the operator.
    """
    return 2 * u[0] * u[1] * rate[0] * rate[1]


@torch.library.custom_op("hybridlab::selective_scan_gradients", mutates_args=())
def _scan_gradients(
    u: Tensor,
    step: Tensor,
    rate: Tensor,
    key: Tensor,
    query: Tensor,
    checkpoints: Tensor,
    grad_y: Tensor,
    grad_final_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the scan's six inputs.

    The adjoint of the state is the reverse recurrence Λ_t = C_t ∂y_tᵀ + exp(Δ_{t+1} A) ⊙ Λ_{t+1}.
    """
    t = u.shape[1]
    u, step, key, query, grad_y = (_split_chunks(each) for each in (u, step, key, query, grad_y))
    grad_chunk_end = _chunk_end_gradients(step, rate, query, grad_y, grad_final_state)  # exp(Δ_{t+1} A) ⊙ Λ_{t+1}
    grad_u, grad_step, grad_key, grad_query = (torch.empty_like(each) for each in (u, step, key, query))
    grad_rate = torch.zeros_like(rate)
    for group in _groups(u):
        for block, block_start in reversed(list(zip(_blocks(len(u)), checkpoints[:, :, group], strict=True))):
            index = block, slice(None), group
            decays = _decays(step[index], rate)
            states = _scan_block(_outer(key[index], u[index]), decays, block_start)
            grad_query[index] = (states @ grad_y[index].unsqueeze(-1)).squeeze(-1)
            adjoints = _scan_block_reversed(_outer(query[index], grad_y[index]), decays, grad_chunk_end[:, group])
            grad_u[index] = (key[index].unsqueeze(-2) @ adjoints).squeeze(-2)
            grad_key[index] = (adjoints @ u[index].unsqueeze(-1)).squeeze(-1)
            grad_previous = adjoints.mul_(decays)
            grad_chunk_end[:, group] = grad_previous[0]
            # The gradients of the exponents Δ_t A.
            grad_previous[0].mul_(block_start)
            grad_previous[1:].mul_(states[:-1])
            grad_rate += torch.mul(grad_previous, step[index].unsqueeze(-2), out=states).sum((0, 1, 2))
            grad_step[index] = grad_previous.mul_(rate).sum(-2)
    grad_u, grad_step, grad_key, grad_query = (
        _merge_chunks(each, t) for each in (grad_u, grad_step, grad_key, grad_query)
    )
    return grad_u, grad_step, grad_rate, grad_key, grad_query, grad_chunk_end[:, 0].clone()


@_scan_gradients.register_fake
def _(
    u: Tensor,
    step: Tensor,
    rate: Tensor,
    key: Tensor,
    query: Tensor,
    checkpoints: Tensor,
    grad_y: Tensor,
    grad_final_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_u, grad_step, grad_rate, grad_key, grad_query, grad_initial_state = (
        each.new_empty(each.shape) for each in (u, step, rate, key, query, grad_final_state)
    )
    return grad_u, grad_step, grad_rate, grad_key, grad_query, grad_initial_state


def _setup_context(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.set_materialize_grads(False)  # a zero gradient of the checkpoints would be as large as they are


def _backward(
    ctx: torch.autograd.function.FunctionCtx, grad_y: Tensor | None, grad_final_state: Tensor | None, _: Tensor | None
) -> tuple[Tensor, ...]:
    saved = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    grad_y = torch.zeros_like(saved[0]) if grad_y is None else grad_y
    grad_final_state = torch.zeros_like(saved[-1][0, :, 0]) if grad_final_state is None else grad_final_state
    return _scan_gradients(*saved, grad_y, grad_final_state)


_scan.register_autograd(_backward, setup_context=_setup_context)


def _chunk_starts(
    u: Float[Tensor, "c b k d"],
    step: Float[Tensor, "c b k d"],
    rate: Float[Tensor, "n d"],
    key: Float[Tensor, "c b k n"],
    initial_state: Float[Tensor, "b n d"],
) -> Float[Tensor, "b k n d"]:
    """Return the state before each chunk.

    All chunks run in parallel from zero; a scan over their final states follows.
    """
    initial_state = initial_state[:, None]
    u, step, key = (each[:, :, :-1] for each in (u, step, key))
    if u.shape[2] == 0:
        return initial_state.clone()
    state = initial_state.new_zeros(*u.shape[1:3], *rate.shape)
    for group in _groups(u):
        for block in _blocks(len(u)):
            index = block, slice(None), group
            state[:, group] = _scan_block(_outer(key[index], u[index]), _decays(step[index], rate), state[:, group])[-1]
    return torch.cat([initial_state, _scan_over_chunks(state, step, rate, initial_state)], dim=1)


def _chunk_end_gradients(
    step: Float[Tensor, "c b k d"],
    rate: Float[Tensor, "n d"],
    query: Float[Tensor, "c b k n"],
    grad_y: Float[Tensor, "c b k d"],
    grad_final_state: Float[Tensor, "b n d"],
) -> Float[Tensor, "b k n d"]:
    """Return the gradient of the state after each chunk: `_chunk_starts` in reverse."""
    grad_end = grad_final_state[:, None]
    step, query, grad_y = (each[:, :, 1:] for each in (step, query, grad_y))
    if step.shape[2] == 0:
        return grad_end.clone()
    grad_chunk_end = grad_end.new_zeros(*step.shape[1:3], *rate.shape)
    for group in _groups(step):
        for block in reversed(_blocks(len(step))):
            index = block, slice(None), group
            decays = _decays(step[index], rate)
            adjoints = _scan_block_reversed(_outer(query[index], grad_y[index]), decays, grad_chunk_end[:, group])
            grad_chunk_end[:, group] = decays[0] * adjoints[0]
    return torch.cat([_scan_over_chunks(grad_chunk_end.flip(1), step.flip(2), rate, grad_end).flip(1), grad_end], dim=1)


def _scan_over_chunks(
    increments: Float[Tensor, "b k n d"],
    step: Float[Tensor, "c b k d"],
    rate: Float[Tensor, "n d"],
    initial_state: Float[Tensor, "b 1 n d"],
) -> Float[Tensor, "b k n d"]:
    """Scan over the chunks' increments; the decay over a whole chunk is exp(A Σ Δ)."""
    log_decay = step.sum(0)[:, :, None] * rate
    states, _ = elementwise_scan(increments.flatten(2), log_decay.flatten(2), initial_state.flatten(1))
    return states.view_as(increments)


def _scan_block(
    increments: Float[Tensor, "m b k n d"], decays: Float[Tensor, "m b k n d"], state: Float[Tensor, "b k n d"]
) -> Float[Tensor, "m b k n d"]:
    """Return the state after each token of a block; overwrite `increments`."""
    for increment, decay in zip(increments, decays, strict=True):
        state = increment.addcmul_(decay, state)
    return increments


def _scan_block_reversed(
    increments: Float[Tensor, "m b k n d"], decays: Float[Tensor, "m b k n d"], grad_chunk_end: Float[Tensor, "b k n d"]
) -> Float[Tensor, "m b k n d"]:
    """Return the adjoint of each state of a block.

    Overwrites `increments`, the contributions of the outputs.
    """
    adjoint = increments[-1].add_(grad_chunk_end)
    for increment, decay in reversed(list(zip(increments[:-1], decays[1:], strict=True))):
        adjoint = increment.addcmul_(decay, adjoint)
    return increments


def _outer(rows: Float[Tensor, "m b k n"], columns: Float[Tensor, "m b k d"]) -> Float[Tensor, "m b k n d"]:
    return rows[..., None] * columns[..., None, :]


def _decays(step: Float[Tensor, "m b k d"], rate: Float[Tensor, "n d"]) -> Float[Tensor, "m b k n d"]:
    return (step[..., None, :] * rate).exp_()


def _chunk_length(t: Any) -> Any:
    """Return the chunk length: at most CHUNK, and as short as the number of chunks permits.

    t is an int, or a SymInt while a compiler traces.
    """
    return -(-t // -(-t // CHUNK))


def _blocks(chunk: Any) -> list[slice]:
    """Return the blocks of a chunk, whose length is an int or a SymInt."""
    return [slice(start, min(start + BLOCK, chunk)) for start in range(0, chunk, BLOCK)]


def _groups(x: Float[Tensor, "c b k f"]) -> list[slice]:
    """Return the groups of chunks that run in parallel."""
    batch, num_chunks = x.shape[1:3]
    size = max(PARALLEL_CHUNKS // batch, -(-num_chunks // MAX_GROUPS), 1)
    return [slice(start, min(start + size, num_chunks)) for start in range(0, num_chunks, size)]


def _split_chunks(x: Float[Tensor, "b t f"]) -> Float[Tensor, "c b k f"]:
    """Split time into chunks; the zeros that pad the last leave the recurrence unchanged."""
    chunk = _chunk_length(x.shape[1])
    return F.pad(x, (0, 0, 0, -x.shape[1] % chunk)).unflatten(1, (-1, chunk)).movedim(2, 0).contiguous()


def _merge_chunks(x: Float[Tensor, "c b k f"], t: int) -> Float[Tensor, "b t f"]:
    """Undo `_split_chunks`."""
    return x.movedim(0, 2).flatten(1, 2)[:, :t].clone(memory_format=torch.contiguous_format)
