"""An op compiles all its GPU kernels before its first run; tested with kernels that only record
calls."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hybridlab.ops.kernels import launch as kernel_launch
from hybridlab.ops.kernels.launch import compiled_at_once, launcher


class _Kernel:
    def __init__(self) -> None:
        self.compiled: list[Tensor] = []
        self.launched: list[Tensor] = []

    def warmup(self, x: Tensor, grid: tuple[int, ...]) -> None:
        self.compiled.append(x)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[[Tensor], None]:
        return self.launched.append


FORWARD, BACKWARD = "forward", "backward"


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> dict[str, _Kernel]:
    monkeypatch.setattr(kernel_launch, "_in_parallel", contextlib.nullcontext)
    monkeypatch.setattr(kernel_launch, "wrap_triton", lambda kernel: kernel)
    return {FORWARD: _Kernel(), BACKWARD: _Kernel()}


def _op(kernels: dict[str, _Kernel]) -> Callable[[Tensor], Tensor]:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            launcher(kernels[FORWARD])[(1,)](x)
            return 2 * x

        @staticmethod
        def backward(ctx: Any, into: Tensor) -> Tensor:
            launcher(kernels[BACKWARD])[(1,)](into)
            return 2 * into

    @compiled_at_once
    def double(x: Tensor) -> Tensor:
        return Double.apply(x)  # pyright: ignore[reportReturnType]

    return double


def test_the_first_run_compiles_forward_and_backward_and_launches_only_forward(kernels: dict[str, _Kernel]) -> None:
    x = torch.randn(3, requires_grad=True)
    y = _op(kernels)(x)
    assert [len(kernel.compiled) for kernel in kernels.values()] == [1, 1]
    assert all(kernel.compiled[0].is_meta for kernel in kernels.values())
    assert [len(kernel.launched) for kernel in kernels.values()] == [1, 0]
    y.sum().backward()
    assert len(kernels[BACKWARD].launched) == 1
    torch.testing.assert_close(x.grad, torch.full_like(x, 2))


def test_a_second_run_compiles_nothing_unless_the_dtype_is_new(kernels: dict[str, _Kernel]) -> None:
    op = _op(kernels)
    for dtype in (torch.float32, torch.float32, torch.float64):
        op(torch.randn(3, dtype=dtype, requires_grad=True))
    assert [len(kernel.compiled) for kernel in kernels.values()] == [2, 2]


@torch.no_grad()
def test_a_run_without_gradients_compiles_no_backward_kernel(kernels: dict[str, _Kernel]) -> None:
    _op(kernels)(torch.randn(3))
    assert [len(kernel.compiled) for kernel in kernels.values()] == [1, 0]


def test_a_failed_rehearsal_does_not_affect_later_launches(kernels: dict[str, _Kernel]) -> None:
    @compiled_at_once
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail(torch.randn(3))
    _op(kernels)(torch.randn(3, requires_grad=True))
    assert len(kernels[FORWARD].launched) == 1
