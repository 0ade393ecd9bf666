"""Selective scan of a diagonal state space: S_t = exp(Δ_t A) ⊙ S_{t-1} + B_t u_tᵀ, y_t = S_tᵀ C_t.

Letters: b batch, t time, d channels, n numbers remembered per channel; k chunks of c tokens, a block of m tokens of each.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula

from hybridlab.ops.kernels.dispatch import scan_kernel_serves
from hybridlab.ops.kernels.launch import compiled_at_once
from hybridlab.ops.precision import accumulation_dtype, autocast_off
from hybridlab.ops.ssm.elementwise_scan import elementwise_scan

# The most dependent steps: longer rows are cut into chunks that run side by side.
CHUNK = 64
# What needs no order is done for so many tokens of every chunk at once. One state in each block is kept for the gradient.
BLOCK = 8
# Little is gained by running more than a few chunks side by side, and all at once would need as many times the memory.
FEW_CHUNKS, MOST_GROUPS = 8, 16


def recurrent_selective_scan(
    u: Float[Tensor, "b t d"],
    step: Float[Tensor, "b t d"],
    rate: Float[Tensor, "n d"],
    key: Float[Tensor, "b t n"],
    query: Float[Tensor, "b t n"],
    start: Float[Tensor, "b n d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n d"]]:
    """Step through the recurrence: the definition of the op. `rate` is A, `key` and `query` are B and C."""
    with autocast_off(u):
        dtype = accumulation_dtype(u)
        driven, step, rate, key, query = (each.to(dtype) for each in (u, step, rate, key, query))
        state = rate.new_zeros(len(u), *rate.shape) if start is None else start.to(dtype)
        outputs = []
        for i in range(u.shape[1]):
            state = (step[:, i, None, :] * rate).exp() * state + key[:, i, :, None] * driven[:, i, None, :]
            outputs.append((query[:, i, :, None] * state).sum(1))
        return torch.stack(outputs, dim=1).to(u.dtype), state


def selective_scan(
    u: Float[Tensor, "b t d"],
    step: Float[Tensor, "b t d"],
    rate: Float[Tensor, "n d"],
    key: Float[Tensor, "b t n"],
    query: Float[Tensor, "b t n"],
    start: Float[Tensor, "b n d"] | None = None,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n d"]]:
    """Give what `recurrent_selective_scan` gives in a number of dependent steps that stops growing with t; step·rate <= 0.

    Every token's state, n times the size of the input, is never held at once: the forward keeps one in each block (on a
    GPU, in each chunk), and the gradient computes the others again, as the paper's kernel does (2312.00752, section 3.3.2).
    """
    with autocast_off(u):
        dtype = accumulation_dtype(u)
        start = rate.new_zeros(len(u), *rate.shape, dtype=dtype) if start is None else start.to(dtype)
        rate = rate.to(dtype)
        if scan_kernel_serves(u, len(rate)):
            return _by_kernels(u, step, rate, key, query, start)
        y, last, _ = _scan(u.to(dtype), step.to(dtype), rate, key.to(dtype), query.to(dtype), start)
        return y.to(u.dtype), last


@compiled_at_once
def _by_kernels(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    from hybridlab.ops.kernels.selective_scan import scan

    return scan(u, step, rate, key, query, start)[:2]


# An operator of its own: a compiler takes it as one node instead of tracing the steps, and its gradient is written by
# hand, so that nothing of the steps is kept.
@torch.library.custom_op("hybridlab::selective_scan", mutates_args=())
def _scan(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the outputs, the last state, and the states before each block."""
    t = u.shape[1]
    u, step, key, query = (_in_chunks(each) for each in (u, step, key, query))
    state = _starts(u, step, rate, key, start)
    kept, y = state.new_empty(len(_blocks(len(u))), *state.shape), torch.empty_like(u)
    for group in _groups(u):
        for block, before in zip(_blocks(len(u)), kept, strict=True):
            at = block, slice(None), group
            before[:, group] = state[:, group]
            states = _steps(_outer(key[at], u[at]), _decays(step[at], rate), state[:, group])
            y[at] = (query[at].unsqueeze(-2) @ states).squeeze(-2)
            state[:, group] = states[-1]
    return _joined(y, t), state[:, -1].clone(), kept


@_scan.register_fake
def _(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    chunk = _chunk(u.shape[1])
    kept = start.new_empty(len(_blocks(chunk)), u.shape[0], -(-u.shape[1] // chunk), *rate.shape)
    return u.new_empty(u.shape), start.new_empty(start.shape), kept


@register_flop_formula(torch.ops.hybridlab.selective_scan)
def _(u: torch.Size, step: torch.Size, rate: torch.Size, *_: torch.Size, **__: object) -> int:
    """Count the product of states and queries: what PyTorch's counter would see, could it look inside."""
    return 2 * u[0] * u[1] * rate[0] * rate[1]


@torch.library.custom_op("hybridlab::selective_scan_gradients", mutates_args=())
def _scan_gradients(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, kept: Tensor, into_y: Tensor, into_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the scan's six inputs.

    The adjoint of the state runs backwards: Λ_t = C_t ∂y_tᵀ + exp(Δ_{t+1} A) ⊙ Λ_{t+1}.
    """
    t = u.shape[1]
    u, step, key, query, into_y = (_in_chunks(each) for each in (u, step, key, query, into_y))
    carried = _ends(step, rate, query, into_y, into_last)  # exp(Δ_{t+1} A) ⊙ Λ_{t+1}
    to_u, to_step, to_key, to_query = (torch.empty_like(each) for each in (u, step, key, query))
    to_rate = torch.zeros_like(rate)
    for group in _groups(u):
        for block, before in reversed(list(zip(_blocks(len(u)), kept[:, :, group], strict=True))):
            at = block, slice(None), group
            decays = _decays(step[at], rate)
            states = _steps(_outer(key[at], u[at]), decays, before)
            to_query[at] = (states @ into_y[at].unsqueeze(-1)).squeeze(-1)
            adjoints = _steps_back(_outer(query[at], into_y[at]), decays, carried[:, group])
            to_u[at] = (key[at].unsqueeze(-2) @ adjoints).squeeze(-2)
            to_key[at] = (adjoints @ u[at].unsqueeze(-1)).squeeze(-1)
            carries = adjoints.mul_(decays)
            carried[:, group] = carries[0]
            # The gradient of each exponent Δ_t A.
            carries[0].mul_(before)
            carries[1:].mul_(states[:-1])
            to_rate += torch.mul(carries, step[at].unsqueeze(-2), out=states).sum((0, 1, 2))
            to_step[at] = carries.mul_(rate).sum(-2)
    to_u, to_step, to_key, to_query = (_joined(each, t) for each in (to_u, to_step, to_key, to_query))
    return to_u, to_step, to_rate, to_key, to_query, carried[:, 0].clone()


@_scan_gradients.register_fake
def _(
    u: Tensor, step: Tensor, rate: Tensor, key: Tensor, query: Tensor, kept: Tensor, into_y: Tensor, into_last: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    to_u, to_step, to_rate, to_key, to_query, to_start = (
        each.new_empty(each.shape) for each in (u, step, rate, key, query, into_last)
    )
    return to_u, to_step, to_rate, to_key, to_query, to_start


def _remember(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]
) -> None:
    ctx.save_for_backward(*inputs[:5], output[2])
    ctx.set_materialize_grads(False)  # zeros for the states before each block would be as large as they


def _gradients(
    ctx: torch.autograd.function.FunctionCtx, into_y: Tensor | None, into_last: Tensor | None, _: None
) -> tuple[Tensor, ...]:
    saved = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    into_y = torch.zeros_like(saved[0]) if into_y is None else into_y
    into_last = torch.zeros_like(saved[-1][0, :, 0]) if into_last is None else into_last
    return _scan_gradients(*saved, into_y, into_last)


_scan.register_autograd(_gradients, setup_context=_remember)


def _starts(
    u: Float[Tensor, "c b k d"],
    step: Float[Tensor, "c b k d"],
    rate: Float[Tensor, "n d"],
    key: Float[Tensor, "c b k n"],
    start: Float[Tensor, "b n d"],
) -> Float[Tensor, "b k n d"]:
    """Return the state before each chunk: all chunks from zero side by side, then a scan over their ends."""
    start = start[:, None]
    u, step, key = (each[:, :, :-1] for each in (u, step, key))
    if u.shape[2] == 0:
        return start.clone()
    state = start.new_zeros(*u.shape[1:3], *rate.shape)
    for group in _groups(u):
        for block in _blocks(len(u)):
            at = block, slice(None), group
            state[:, group] = _steps(_outer(key[at], u[at]), _decays(step[at], rate), state[:, group])[-1]
    return torch.cat([start, _over_chunks(state, step, rate, start)], dim=1)


def _ends(
    step: Float[Tensor, "c b k d"],
    rate: Float[Tensor, "n d"],
    query: Float[Tensor, "c b k n"],
    into_y: Float[Tensor, "c b k d"],
    into_last: Float[Tensor, "b n d"],
) -> Float[Tensor, "b k n d"]:
    """Return the gradient of the state after each chunk, as `_starts` returns states, but backwards."""
    end = into_last[:, None]
    step, query, into_y = (each[:, :, 1:] for each in (step, query, into_y))
    if step.shape[2] == 0:
        return end.clone()
    carried = end.new_zeros(*step.shape[1:3], *rate.shape)
    for group in _groups(step):
        for block in reversed(_blocks(len(step))):
            at = block, slice(None), group
            decays = _decays(step[at], rate)
            adjoints = _steps_back(_outer(query[at], into_y[at]), decays, carried[:, group])
            carried[:, group] = decays[0] * adjoints[0]
    return torch.cat([_over_chunks(carried.flip(1), step.flip(2), rate, end).flip(1), end], dim=1)


def _over_chunks(
    added: Float[Tensor, "b k n d"],
    step: Float[Tensor, "c b k d"],
    rate: Float[Tensor, "n d"],
    start: Float[Tensor, "b 1 n d"],
) -> Float[Tensor, "b k n d"]:
    """Scan over chunks. What is left of a state after a chunk is known without its steps: exp(A Σ Δ)."""
    log_decay = step.sum(0)[:, :, None] * rate
    states, _ = elementwise_scan(added.flatten(2), log_decay.flatten(2), start.flatten(1))
    return states.view_as(added)


def _steps(
    added: Float[Tensor, "m b k n d"], decays: Float[Tensor, "m b k n d"], state: Float[Tensor, "b k n d"]
) -> Float[Tensor, "m b k n d"]:
    """Return the state after each token of a block, in place of what each adds."""
    for term, decay in zip(added, decays, strict=True):
        state = term.addcmul_(decay, state)
    return added


def _steps_back(
    added: Float[Tensor, "m b k n d"], decays: Float[Tensor, "m b k n d"], carried: Float[Tensor, "b k n d"]
) -> Float[Tensor, "m b k n d"]:
    """Return the adjoint of each state of a block, in place of what each output adds to it."""
    adjoint = added[-1].add_(carried)
    for term, decay in reversed(list(zip(added[:-1], decays[1:], strict=True))):
        adjoint = term.addcmul_(decay, adjoint)
    return added


def _outer(rows: Float[Tensor, "m b k n"], columns: Float[Tensor, "m b k d"]) -> Float[Tensor, "m b k n d"]:
    return rows[..., None] * columns[..., None, :]


def _decays(step: Float[Tensor, "m b k d"], rate: Float[Tensor, "n d"]) -> Float[Tensor, "m b k n d"]:
    return (step[..., None, :] * rate).exp_()


def _chunk(t: int) -> int:
    """Return the length of the chunks: CHUNK or less, so that they are as full as can be."""
    return -(-t // -(-t // CHUNK))


def _blocks(chunk: int) -> list[slice]:
    return [slice(first, min(first + BLOCK, chunk)) for first in range(0, chunk, BLOCK)]


def _groups(x: Float[Tensor, "c b k f"]) -> list[slice]:
    """Return which chunks run side by side."""
    batch, num_chunks = x.shape[1:3]
    size = max(FEW_CHUNKS // batch, -(-num_chunks // MOST_GROUPS), 1)
    return [slice(first, min(first + size, num_chunks)) for first in range(0, num_chunks, size)]


def _in_chunks(x: Float[Tensor, "b t f"]) -> Float[Tensor, "c b k f"]:
    """Cut time into chunks; the last is filled with zeros, which leave the recurrence as it is."""
    chunk = _chunk(x.shape[1])
    return F.pad(x, (0, 0, 0, -x.shape[1] % chunk)).unflatten(1, (-1, chunk)).movedim(2, 0).contiguous()


def _joined(x: Float[Tensor, "c b k f"], t: int) -> Float[Tensor, "b t f"]:
    """Undo `_in_chunks`."""
    return x.movedim(0, 2).flatten(1, 2)[:, :t].clone(memory_format=torch.contiguous_format)
