"""Which implementation of an op runs: the only place that chooses."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hybridlab.ops.kernels.padding import WIDEST

HALF = (torch.bfloat16, torch.float16)
# Looked up here, because a compiler that traces an op would warn of a cached function.
HAS_TRITON = importlib.util.find_spec("triton") is not None
LARGEST_STATE = 128  # numbers per channel that those of the selective scan share out to the registers of 8 warps
MOST_TAPS = 64  # of a short convolution; what has more goes by Fourier transforms
KERNEL_BLOCK = 64  # keys of a block that those of attention to listed blocks take
MOST_ROWS = 65535  # a GPU launches so many programs side by side in the second direction, and in the third
# While somebody looks: of each op that has a kernel, what is too large for it.
_noted: list[list[str]] | None = None


def kernel_serves(x: Tensor, width: int = 0, rows: int = 0) -> bool:
    """Say whether a GPU kernel of ours takes over from the PyTorch form: in half precision, for vectors of this width and so many
    heads of all rows together, where these matter."""
    return _serves(x, HALF, ("numbers of a vector", width, WIDEST), ("heads of all rows", rows, MOST_ROWS))


def wide_kernel_serves(x: Tensor) -> bool:
    """Say the same of the kernels that work in float32 throughout, for any width."""
    return _serves(x, (torch.float32,))


def scan_kernel_serves(x: Tensor, size: int) -> bool:
    """Say the same of the kernels of the selective scan, of float32 or half precision, for a state of this size a channel."""
    return _serves(x, (torch.float32, *HALF), ("numbers remembered by a channel", size, LARGEST_STATE))


def short_conv_kernel_serves(x: Tensor, taps: int) -> bool:
    """Say the same of the kernels of short convolutions, of float32 or half precision, for so many taps."""
    return _serves(x, (torch.float32, *HALF), ("taps", taps, MOST_TAPS), ("rows", x.shape[0], MOST_ROWS))


def taylor_kernel_serves(x: Tensor, width: int, values: int) -> bool:
    """Say the same of the kernels of Taylor attention, in half precision, for queries and values that fit into a program."""
    return _serves(x, HALF, ("numbers of a query", width, 64), ("numbers of a value", values, WIDEST))


def block_kernel_serves(x: Tensor, width: int, values: int, block: int, sharing: int) -> bool:
    """Say the same of the kernels of attention to chosen blocks, by the length of a block and the heads that share a choice."""
    return _serves(
        x,
        HALF,
        ("numbers of a vector", max(width, values), WIDEST),
        ("tokens of a block", block, 4 * KERNEL_BLOCK),
        (f"tokens of a block beyond a multiple of {KERNEL_BLOCK}", block % KERNEL_BLOCK, 0),
        ("heads that share a choice", sharing, 64),
    )


def flash_serves(q: Tensor) -> bool:
    """Say whether PyTorch's flash kernels take a window, on this GPU and for heads of this width."""
    rows, width = q.shape[0] * q.shape[1], q.shape[-1]
    taken = q.is_cuda and q.dtype in HALF and width <= 256 and width % 8 == 0 and rows <= MOST_ROWS
    return taken and _runs_flash(q.device)


@contextmanager
def kernels_noted() -> Iterator[list[list[str]]]:
    """Give a list that tells after the block, for each op in it with a kernel on a GPU, what is too large for the kernel; the
    block may run anywhere."""
    global _noted
    _noted = noted = []
    try:
        yield noted
    finally:
        _noted = None


def chunk_length(x: Tensor) -> int:
    """Return the chunk that linear attention without decay is fastest in: on a GPU, fewer states between longer chunks."""
    return 128 if x.is_cuda else 64


def _serves(x: Tensor, dtypes: tuple[torch.dtype, ...], *limits: tuple[str, int, int]) -> bool:
    """Say whether a kernel runs here, and note what is too large for it; `limits` are what, how many there are, and at most."""
    if _noted is not None:
        _noted.append([f"{what}: {given}, at most {most}" for what, given, most in limits if given > most])
    return all(given <= most for _, given, most in limits) and x.is_cuda and x.dtype in dtypes and HAS_TRITON


@torch.compiler.assume_constant_result
def _runs_flash(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)
