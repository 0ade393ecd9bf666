"""Which implementation of an op runs: the only place that chooses."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

KERNEL_WIDTHS = (16, 32, 64, 128)  # what a program of the kernels holds in registers
# Looked up here, because a compiler that traces an op would warn of a cached function.
HAS_TRITON = importlib.util.find_spec("triton") is not None
LARGEST_STATE = 128  # numbers per channel that those of the selective scan share out to the registers of 8 warps
_noted: list[bool] | None = None  # a note for each time that a kernel has the widths asked for, while somebody looks


def kernel_serves(x: Tensor, *widths: int) -> bool:
    """Say whether a GPU kernel of ours takes over from the PyTorch form: in half precision, for heads of these widths."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    return _is_written_for(widths) and x.is_cuda and half and HAS_TRITON


def wide_kernel_serves(x: Tensor, *widths: int) -> bool:
    """Say the same of the kernels that work in float32 throughout."""
    return _is_written_for(widths) and x.is_cuda and x.dtype == torch.float32 and HAS_TRITON


def scan_kernel_serves(x: Tensor, size: int) -> bool:
    """Say the same of the kernels of the selective scan, of float32 or half precision, for a state of this size a channel."""
    narrow = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return _note(size <= LARGEST_STATE) and x.is_cuda and narrow and HAS_TRITON


def taylor_kernel_serves(x: Tensor, width: int, values: int) -> bool:
    """Say the same of the kernels of Taylor attention, in half precision, for queries and values that fit into a program."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    return _note(width <= 64 and values <= 128) and x.is_cuda and half and HAS_TRITON


@contextmanager
def kernels_noted() -> Iterator[list[bool]]:
    """Give a list that is empty after the block unless an op in it has a kernel on a GPU; the block may run anywhere."""
    global _noted
    _noted = noted = []
    try:
        yield noted
    finally:
        _noted = None


def chunk_length(x: Tensor) -> int:
    """Return the chunk that linear attention without decay is fastest in: on a GPU, fewer states between longer chunks."""
    return 128 if x.is_cuda else 64


def _is_written_for(widths: tuple[int, ...]) -> bool:
    return _note(all(width in KERNEL_WIDTHS for width in widths))


def _note(written: bool) -> bool:
    if written and _noted is not None:
        _noted.append(True)
    return written
