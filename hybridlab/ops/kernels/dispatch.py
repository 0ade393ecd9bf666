"""The choice of an op's implementation: a GPU kernel if it fits, otherwise PyTorch's form."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hybridlab.ops.kernels.padding import MAX_WIDTH

HALF = (torch.bfloat16, torch.float16)
# Looked up once at import: a compiler that traces an op warns of cached functions.
HAS_TRITON = importlib.util.find_spec("triton") is not None
MAX_STATE = 128  # per channel: what the selective scan's kernels hold in the registers of 8 warps
MAX_TAPS = 64  # of a short convolution; longer ones use Fourier transforms
KERNEL_BLOCK = 64  # keys per block in the kernels of block attention
MAX_GRID = 65535  # programs that a GPU launches along the second and the third axis of a grid
# While `record_kernel_use` runs: for each op that has a kernel, the sizes that are too large for
# it.
_recorded: list[list[str]] | None = None


def can_use_kernel(x: Tensor, width: int = 0, batch_heads: int = 0) -> bool:
    """Return whether a Triton kernel replaces the PyTorch form: in half precision, for this head
    width and this batch x heads count, if the kernel depends on them."""
    return _can_use(x, HALF, ("head width", width, MAX_WIDTH), ("batch x heads", batch_heads, MAX_GRID))


def can_use_float32_kernel(x: Tensor) -> bool:
    """Return the same for kernels that work in float32 throughout, for any width."""
    return _can_use(x, (torch.float32,))


def can_use_scan_kernel(x: Tensor, size: int) -> bool:
    """Return the same for the selective scan, in float32 or half precision, for this state size per
    channel."""
    return _can_use(x, (torch.float32, *HALF), ("state size", size, MAX_STATE))


def can_use_short_conv_kernel(x: Tensor, taps: int) -> bool:
    """Return the same for short convolutions, in float32 or half precision, for this many taps."""
    return _can_use(x, (torch.float32, *HALF), ("taps", taps, MAX_TAPS), ("batch size", x.shape[0], MAX_GRID))


def can_use_taylor_kernel(x: Tensor, width: int, value_width: int) -> bool:
    """Return the same for Taylor attention, in half precision, for these widths of queries and
    values."""
    return _can_use(x, HALF, ("query width", width, 64), ("value width", value_width, MAX_WIDTH))


def can_use_block_kernel(x: Tensor, width: int, value_width: int, block: int, sharing: int) -> bool:
    """Return the same for attention to chosen blocks, for this block length and `sharing` heads per
    choice."""
    return _can_use(
        x,
        HALF,
        ("head width", max(width, value_width), MAX_WIDTH),
        ("block length", block, 4 * KERNEL_BLOCK),
        (f"block length modulo {KERNEL_BLOCK}", block % KERNEL_BLOCK, 0),
        ("heads that share a choice", sharing, 64),
    )


def can_use_flash(q: Tensor) -> bool:
    """Return whether PyTorch's flash kernels take a window on this GPU and for this head width."""
    batch_heads, width = q.shape[0] * q.shape[1], q.shape[-1]
    fits = q.is_cuda and q.dtype in HALF and width <= 256 and width % 8 == 0 and batch_heads <= MAX_GRID
    return fits and _runs_flash(q.device)


@contextmanager
def record_kernel_use() -> Iterator[list[list[str]]]:
    """Yield a list that the block fills: for each op with a Triton kernel, the sizes that are too
    large for that kernel.

    The block may run on any device.
    """
    global _recorded
    _recorded = recorded = []
    try:
        yield recorded
    finally:
        _recorded = None


def chunk_length(x: Tensor) -> int:
    """Return the fastest chunk length for linear attention without decay: on a GPU, longer chunks
    and fewer states."""
    return 128 if x.is_cuda else 64


def _can_use(x: Tensor, dtypes: tuple[torch.dtype, ...], *limits: tuple[str, int, int]) -> bool:
    """Return whether a kernel runs for x, and record which sizes exceed it; `limits` are (name,
    size, maximum)."""
    if _recorded is not None:
        _recorded.append([f"{name}: {size}, at most {most}" for name, size, most in limits if size > most])
    return all(size <= most for _, size, most in limits) and x.is_cuda and x.dtype in dtypes and HAS_TRITON


@torch.compiler.assume_constant_result
def _runs_flash(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)
