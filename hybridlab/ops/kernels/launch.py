"""Launch the GPU kernels of an op, and compile them in parallel before their first launch.

A compiler that traces a model compiles kernels itself. In eager mode each kernel would be compiled
when it is first reached, one after the other, forward and backward.
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
    """Return an object that launches a kernel as `launcher(kernel)[grid](...)`; in a rehearsal it
    only compiles the kernel."""
    return _Compiler(kernel) if _rehearsed else wrap_triton(kernel)


def compiled_at_once(op: Callable[P, T]) -> Callable[P, T]:
    """Decorate an op that runs GPU kernels: its first call with new dtypes and widths compiles all
    its kernels, forward and backward, in parallel."""
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
    """A stand-in for a kernel that compiles it instead of launching it."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        return functools.partial(self.kernel.warmup, grid=grid)


class _Threads(ThreadPoolExecutor):
    """Threads that compile kernels and load them."""

    def submit(self, compiled: Callable[[], Any]) -> Future[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        device = torch.cuda.current_device()

        def load() -> Any:
            kernel = compiled()
            with torch.cuda.device(device):
                _ = kernel.run  # builds the launcher with a C compiler
            return kernel

        return super().submit(load)


@contextmanager
def _in_parallel() -> Iterator[None]:
    """Compile the kernels of a block in threads and wait for all of them; a kernel that fails to
    compile raises when launched."""
    from triton import AsyncCompileMode  # pyright: ignore[reportMissingImports]

    with _Threads() as threads, AsyncCompileMode(threads, ignore_errors=True):
        yield


def _kind(x: Any) -> Any:
    return (x.dtype, x.shape[-1], x.requires_grad) if isinstance(x, Tensor) else x


def _rehearse(op: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
    """Run the op and its backward pass on meta tensors: kernels are compiled in threads, and none
    is launched."""
    global _rehearsed
    grads = torch.is_grad_enabled()
    shadows = [
        x.detach().to("meta").requires_grad_(grads and x.requires_grad) if isinstance(x, Tensor) else x for x in inputs
    ]
    with _in_parallel():
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
