"""Runs that share a process do not affect one another."""

import gc
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

# The settings of the process that a run, a mixer or Lightning may change: how to read and how to
# restore each.
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    (torch.is_grad_enabled, torch.set_grad_enabled),
)
_CUDNN = ("benchmark", "deterministic")


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed every generator at the start.

    At the end restore settings and environment, and free memory and compiled code.
    """
    environment = dict(os.environ)
    settings = [(restore, get()) for get, restore in _SETTINGS]
    cudnn: Any = torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in _CUDNN}
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    _reset_peak_memory()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for restore, value in settings:
            restore(value)
        for name, flag in flags.items():
            setattr(cudnn, name, flag)
        os.environ.clear()
        os.environ.update(environment)
        if "torch._dynamo" in sys.modules:  # else nothing was compiled, and importing it takes seconds
            torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _reset_peak_memory() -> None:
    """Start measuring the peak of memory anew."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # only Linux has it: proc(5), clear_refs
        Path("/proc/self/clear_refs").write_text("5")
