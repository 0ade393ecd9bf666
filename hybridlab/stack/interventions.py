"""Temporary changes of a trained stack, for a measurement.

They work on an eager stack only: a compiled one ignores hooks that are registered after its
compilation.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.stack.model import Stack

Part = Literal["mixer", "channel"]


@contextmanager
def zero_ablated(stack: Stack, layers: Iterable[int], part: Part, only: str | None = None) -> Iterator[None]:
    """Zero ablation: mixers, or channel mixers, of the given layers add nothing to the stream.

    `only` restricts the change to one part of parallel mixers.
    """
    with _changed(modules(stack, layers, part, only), lambda _module, output: torch.zeros_like(output)):
        yield


@contextmanager
def mean_ablated(
    stack: Stack,
    layers: Iterable[int],
    part: Part,
    means: Mapping[nn.Module, Float[Tensor, " d"]],
    only: str | None = None,
) -> Iterator[None]:
    """Mean ablation: mixers, or channel mixers, of the given layers put out `means`."""
    with _changed(
        modules(stack, layers, part, only), lambda module, output: means[module].to(output).expand_as(output)
    ):
        yield


@contextmanager
def blocked(stack: Stack, layers: Iterable[int], block: int, only: str | None = None) -> Iterator[None]:
    """Limit how far back the mixers of the given layers see.

    Each mixer reads windows of two blocks, one window per block, and the output is taken from the
    second block. So every position sees at least the `block` positions before it and at most 2
    `block` - 1. A bidirectional mixer also reads the block after.
    """
    changed = modules(stack, layers, "mixer", only)
    for module in changed:
        module.forward = partial(_in_windows, module.forward, block, block * (not module.causal))
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def modules(stack: Stack, layers: Iterable[int], part: Part, only: str | None = None) -> list[Any]:
    """Return the mixers, or the channel mixers, of the given layers.

    With `only`, one part of their parallel mixers.
    """
    found: list[Any] = [getattr(stack.layers[index], part) for index in layers]
    return [module if only is None else module.parts[only] for module in found if module is not None]


@contextmanager
def _changed(changed: Iterable[nn.Module], change: Callable[[nn.Module, Tensor], Tensor]) -> Iterator[None]:
    """Replace the outputs of some modules."""

    def hook(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return change(module, output)

    with ExitStack() as hooks:
        for module in changed:
            hooks.callback(module.register_forward_hook(hook).remove)
        yield


def _in_windows(
    mix: Callable[[Tensor], Tensor], block: int, ahead: int, x: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t d"]:
    """Mix sequences block by block, each with the block before it and `ahead` positions after it.

    Windows of the same shape share a call.
    """
    length = x.shape[1]
    windows: dict[tuple[int, int, int], list[int]] = {}
    for first in range(0, length, block):
        end, low = min(first + block, length), max(0, first - block)
        windows.setdefault((first - low, end - low, min(end + ahead, length) - low), []).append(low)
    mixed = torch.empty_like(x)
    for (first, end, size), lows in windows.items():
        positions = torch.tensor(lows, device=x.device)[:, None] + torch.arange(size, device=x.device)
        y = mix(x[:, positions].flatten(0, 1)).unflatten(0, (len(x), -1))
        mixed = mixed.to(y.dtype).index_copy(1, positions[:, first:end].flatten(), y[:, :, first:end].flatten(1, 2))
    return mixed
