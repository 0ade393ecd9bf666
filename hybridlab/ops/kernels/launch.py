"""How the GPU kernels of an op are launched, and compiled side by side before their first launch.

A compiler that traces a model compiles kernels by itself; run eagerly, each kernel would be compiled when it is reached, one
after the other, forward and backward.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.library import wrap_triton

P = ParamSpec("P")
T = TypeVar("T")
_rehearsed = False


def launcher(kernel: Any) -> Any:
    """Return what takes a grid and launches a kernel of an op, `launcher(kernel)[grid](...)`; in a rehearsal it is compiled."""
    return _Compiler(kernel) if _rehearsed else wrap_triton(kernel)


def compiled_at_once(op: Callable[P, T]) -> Callable[P, T]:
    """Decorate an op that runs on GPU kernels: at its first run with inputs of new dtypes and widths all kernels of it and of
    its gradient are compiled, side by side."""
    known: set[tuple[Any, ...]] = set()

    @functools.wraps(op)
    def run(*inputs: P.args, **options: P.kwargs) -> T:
        if not torch.compiler.is_compiling() and not _rehearsed:
            kinds = (torch.is_grad_enabled(), *(_kind(each) for each in inputs))
            if kinds not in known:
                known.add(kinds)
                _rehearse(op, inputs)
        return op(*inputs, **options)

    return run


class _Compiler:
    """Takes the place of a kernel that is only to be compiled."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        return functools.partial(self.kernel.warmup, grid=grid)


class _Threads(ThreadPoolExecutor):
    """Compile kernels side by side, and load them."""

    def submit(self, compiled: Callable[[], Any]) -> Future[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        device = torch.cuda.current_device()

        def load() -> Any:
            kernel = compiled()
            with torch.cuda.device(device):
                _ = kernel.run  # which builds what launches it, with a compiler of C
            return kernel

        return super().submit(load)


@contextmanager
def _side_by_side() -> Iterator[None]:
    """Compile the kernels of a block in threads; it ends when all are compiled. What does not compile says so at its launch."""
    from triton import AsyncCompileMode  # pyright: ignore[reportMissingImports]

    with _Threads() as threads, AsyncCompileMode(threads, ignore_errors=True):
        yield


def _kind(x: Any) -> Any:
    return (x.dtype, x.shape[-1], x.requires_grad) if isinstance(x, Tensor) else x


def _rehearse(op: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
    """Run the op and its gradient on tensors without memory; kernels are compiled in threads, and nothing is launched."""
    global _rehearsed
    grads = torch.is_grad_enabled()
    shadows = [
        x.detach().to("meta").requires_grad_(grads and x.requires_grad) if isinstance(x, Tensor) else x for x in inputs
    ]
    with _side_by_side():
        _rehearsed = True
        try:
            results = op(*shadows)
            results = (results,) if isinstance(results, Tensor) else results
            outputs = [x for x in results if x.requires_grad]
            if outputs:
                sources = [x for x in shadows if isinstance(x, Tensor) and x.requires_grad]
                torch.autograd.grad(outputs, sources, [torch.empty_like(x) for x in outputs], allow_unused=True)
        finally:
            _rehearsed = False
