"""The scan of states with decays as one GPU kernel: a program steps along with a part of the state in registers.

The scan is its own gradient: the same kernel, run backwards, carries the gradient of the states.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

PART = 256  # numbers of the state per program of one warp


@triton.jit
def _scan_kernel(
    x, log_decay, start, states, last, steps, size, v, part: tl.constexpr, backwards: tl.constexpr,
):  # fmt: skip
    """Take four steps a turn, because a step is short and a load is not."""
    row, e = tl.program_id(0).to(tl.int64), tl.program_id(1) * part + tl.arange(0, part)
    inside = e < size
    of, decays = e // v, size // v
    first = row * steps + (steps - 1 if backwards else 0)
    on = -1 if backwards else 1
    state = tl.load(start + row * size + e, mask=inside, other=0.0)
    for turn in range(0, steps, 4):
        in0, in1 = inside & (turn < steps), inside & (turn + 1 < steps)
        in2, in3 = inside & (turn + 2 < steps), inside & (turn + 3 < steps)
        n = first + turn * on
        p0, p1, p2, p3 = n * size + e, (n + on) * size + e, (n + 2 * on) * size + e, (n + 3 * on) * size + e
        x0, x1 = tl.load(x + p0, mask=in0, other=0.0), tl.load(x + p1, mask=in1, other=0.0)
        x2, x3 = tl.load(x + p2, mask=in2, other=0.0), tl.load(x + p3, mask=in3, other=0.0)
        g0 = tl.load(log_decay + n * decays + of, mask=in0, other=0.0)
        g1 = tl.load(log_decay + (n + on) * decays + of, mask=in1, other=0.0)
        g2 = tl.load(log_decay + (n + 2 * on) * decays + of, mask=in2, other=0.0)
        g3 = tl.load(log_decay + (n + 3 * on) * decays + of, mask=in3, other=0.0)
        after0 = tl.exp(g0) * state + x0.to(tl.float32)
        after1 = tl.exp(g1) * after0 + x1.to(tl.float32)
        after2 = tl.exp(g2) * after1 + x2.to(tl.float32)
        tl.store(states + p0, state.to(states.dtype.element_ty), mask=in0)
        tl.store(states + p1, after0.to(states.dtype.element_ty), mask=in1)
        tl.store(states + p2, after1.to(states.dtype.element_ty), mask=in2)
        tl.store(states + p3, after2.to(states.dtype.element_ty), mask=in3)
        state = tl.exp(g3) * after2 + x3.to(tl.float32)
    tl.store(last + row * size + e, state, mask=inside)


@triton_op("hybridlab::decayed_states", mutates_args={})
def scan(x: Tensor, log_decay: Tensor, start: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """Scan rows of states: x [r n k v], log_decay [r n k] and start [r k v] in float32.

    Return the states before each step [r n k v], in the dtype of x, and the last in float32. `backwards` goes from the
    last step to the first.
    """
    rows, steps, k, v = x.shape
    states = torch.empty_like(x, memory_format=torch.contiguous_format)
    last = torch.empty_like(start, memory_format=torch.contiguous_format)
    wrap_triton(_scan_kernel)[(rows, triton.cdiv(k * v, PART))](
        x.contiguous(), log_decay.contiguous(), start.contiguous(), states, last,
        steps, k * v, v, part=PART, backwards=backwards, num_warps=1,
    )  # fmt: skip
    return states, last


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[1], output[0])


def _backward(ctx: Any, d_states: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
    log_decay, states = ctx.saved_tensors
    # What reaches the state after each step, and so the term that was added there.
    arriving, d_start = scan(d_states, log_decay, d_last, True)
    d_log_decay = log_decay.exp() * (arriving.float() * states.float()).sum(-1) if ctx.needs_input_grad[1] else None
    return arriving, d_log_decay, d_start, None


scan.register_autograd(_backward, setup_context=_save)
