"""A run on its own: nothing that an earlier one of this process did reaches it."""

import gc
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

# What a run, a mixer or Lightning may set for the whole process: how to read it, how to put it back.
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
    """Seed every generator at the start; at the end, put back settings and environment, free memory and compiled code."""
    environment = dict(os.environ)
    settings = [(put, get()) for get, put in _SETTINGS]
    cudnn: Any = torch.backends.cudnn
    flags = {name: getattr(cudnn, name) for name in _CUDNN}
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    _forget_peak_memory()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for put, value in settings:
            put(value)
        for name, flag in flags.items():
            setattr(cudnn, name, flag)
        os.environ.clear()
        os.environ.update(environment)
        torch.compiler.reset()
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _forget_peak_memory() -> None:
    """Let peaks of memory be this run's."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # Linux has it: proc(5), clear_refs
        Path("/proc/self/clear_refs").write_text("5")
