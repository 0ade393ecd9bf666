"""Which implementation of an op runs: the only place that chooses."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from hybridlab.ops.kernel_widths import WIDEST

HALF = (torch.bfloat16, torch.float16)
# Looked up here, because a compiler that traces an op would warn of a cached function.
HAS_TRITON = importlib.util.find_spec("triton") is not None
LARGEST_STATE = 128  # numbers per channel that those of the selective scan share out to the registers of 8 warps
MOST_TAPS = 64  # of a short convolution whose kernels are written out tap by tap
KERNEL_BLOCK = 64  # keys of a block that those of attention to listed blocks take
MOST_ROWS = 65535  # a GPU launches so many programs side by side in the second direction, and in the third
# While somebody looks: of each op that has a kernel, whether the kernel takes its widths.
_noted: list[bool] | None = None


def kernel_serves(x: Tensor, *widths: int) -> bool:
    """Say whether a GPU kernel of ours takes over from the PyTorch form: in half precision, for vectors of these widths."""
    return _serves(x, all(width <= WIDEST for width in widths), HALF)


def wide_kernel_serves(x: Tensor) -> bool:
    """Say the same of the kernels that work in float32 throughout, for any width."""
    return _serves(x, True, (torch.float32,))


def scan_kernel_serves(x: Tensor, size: int) -> bool:
    """Say the same of the kernels of the selective scan, of float32 or half precision, for a state of this size a channel."""
    return _serves(x, size <= LARGEST_STATE, (torch.float32, *HALF))


def short_conv_kernel_serves(x: Tensor, taps: int) -> bool:
    """Say the same of the kernels of short convolutions, of float32 or half precision, for so many taps."""
    return _serves(x, taps <= MOST_TAPS and x.shape[0] <= MOST_ROWS, (torch.float32, *HALF))


def taylor_kernel_serves(x: Tensor, width: int, values: int) -> bool:
    """Say the same of the kernels of Taylor attention, in half precision, for queries and values that fit into a program."""
    return _serves(x, width <= 64 and values <= WIDEST, HALF)


def block_kernel_serves(x: Tensor, width: int, values: int, block: int, sharing: int) -> bool:
    """Say the same of the kernels of attention to chosen blocks, by the length of a block and the heads that share a choice."""
    cut = block % KERNEL_BLOCK == 0 and block <= 4 * KERNEL_BLOCK
    return _serves(x, max(width, values) <= WIDEST and cut and sharing <= 64, HALF)


def flash_serves(q: Tensor) -> bool:
    """Say whether PyTorch's flash kernels take a window, on this GPU and for heads of this width."""
    rows, width = q.shape[0] * q.shape[1], q.shape[-1]
    taken = q.is_cuda and q.dtype in HALF and width <= 256 and width % 8 == 0 and rows <= MOST_ROWS
    return taken and _runs_flash(q.device)


@contextmanager
def kernels_noted() -> Iterator[list[bool]]:
    """Give a list that tells after the block, for each op in it with a kernel on a GPU, if the kernel takes its widths; the block
    may run anywhere."""
    global _noted
    _noted = noted = []
    try:
        yield noted
    finally:
        _noted = None


def chunk_length(x: Tensor) -> int:
    """Return the chunk that linear attention without decay is fastest in: on a GPU, fewer states between longer chunks."""
    return 128 if x.is_cuda else 64


def _serves(x: Tensor, written: bool, dtypes: tuple[torch.dtype, ...]) -> bool:
    """Say whether a kernel that is written for the widths runs here, and note whether there is one."""
    if _noted is not None:
        _noted.append(written)
    return written and x.is_cuda and x.dtype in dtypes and HAS_TRITON


@torch.compiler.assume_constant_result
def _runs_flash(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)
