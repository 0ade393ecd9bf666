"""Which implementation of an op runs: the only place that chooses."""

import importlib.util
from functools import cache

import torch
from torch import Tensor

KERNEL_WIDTHS = (16, 32, 64, 128)  # what a program of the kernels holds in registers


def kernel_serves(x: Tensor, *widths: int) -> bool:
    """Say whether a GPU kernel of ours takes over from the PyTorch form: in half precision, for heads of these widths."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    return x.is_cuda and half and all(width in KERNEL_WIDTHS for width in widths) and _has_triton()


def wide_kernel_serves(x: Tensor, *widths: int) -> bool:
    """Say the same of the kernels that work in float32 throughout."""
    return x.is_cuda and x.dtype == torch.float32 and all(width in KERNEL_WIDTHS for width in widths) and _has_triton()


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
