"""The scan of affine maps as one GPU kernel: a program steps through a row's maps with its columns of the state in registers.

A scan is its own gradient: the same kernel, run backwards with the matrices transposed, carries the gradient of the states.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton

COLUMNS = 16  # of the state, per program: more programs side by side, all with the same loads of the matrices


@triton.jit
def _scan_kernel(
    decay, matrix, added, start, states, last,
    steps, width, matrix_row, matrix_column,
    k: tl.constexpr, columns: tl.constexpr, backwards: tl.constexpr,
):  # fmt: skip
    row, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * columns
    i, j, c = tl.arange(0, k), tl.arange(0, k), first + tl.arange(0, columns)
    inside = (c < width)[None, :]
    state = tl.load(start + row * k * width + i[:, None] * width + c[None, :], mask=inside, other=0.0).to(tl.float32)
    for step in range(steps):
        n = row * steps + (steps - 1 - step if backwards else step)
        place = n * k * width + i[:, None] * width + c[None, :]
        tl.store(states + place, state.to(states.dtype.element_ty), mask=inside)
        turn = tl.load(matrix + n * k * k + i[:, None] * matrix_row + j[None, :] * matrix_column)
        left = tl.load(decay + n * k + i)
        term = tl.load(added + place, mask=inside, other=0.0).to(tl.float32)
        state = tl.dot(turn, state.to(turn.dtype), acc=term + left[:, None] * state)
    tl.store(last + row * k * width + i[:, None] * width + c[None, :], state, mask=inside)


@triton_op("hybridlab::affine_scan", mutates_args={})
def scan(decay: Tensor, matrix: Tensor, added: Tensor, start: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """Scan rows of maps: decay [r n k] and start [r k v] in float32, matrix [r n k k] and added [r n k v].

    Return the states before each step [r n k v], in the dtype of `added`, and the last in float32. `backwards` goes from
    the last map to the first with the transposed matrices.
    """
    rows, steps, k, width = added.shape
    states = torch.empty_like(added, memory_format=torch.contiguous_format)
    last = torch.empty_like(start, memory_format=torch.contiguous_format)
    across = (1, k) if backwards else (k, 1)
    wrap_triton(_scan_kernel)[(rows, triton.cdiv(width, COLUMNS))](
        decay.contiguous(), matrix.contiguous(), added.contiguous(), start.contiguous(), states, last,
        steps, width, *across, k=k, columns=COLUMNS, backwards=backwards, num_warps=2, num_stages=4,
    )  # fmt: skip
    return states, last


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    decay, matrix, _, _, _ = inputs
    ctx.save_for_backward(decay, matrix, output[0])


def _backward(ctx: Any, d_states: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
    decay, matrix, states = ctx.saved_tensors
    # What reaches the state after each step, and so the term that was added there.
    arriving, d_start = scan(decay, matrix, d_states, d_last, True)
    d_matrix = arriving @ states.mT
    d_decay = (arriving.float() * states.float()).sum(-1)
    return d_decay, d_matrix.to(matrix.dtype), arriving, d_start, None


scan.register_autograd(_backward, setup_context=_save)
