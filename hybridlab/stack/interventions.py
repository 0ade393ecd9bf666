"""Changes of a trained stack for the time of a measurement.

They work on the eager stack only: a compiled one ignores what comes after its compilation.
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
def silenced(stack: Stack, layers: Iterable[int], part: Part, only: str | None = None) -> Iterator[None]:
    """Make the mixers (or the channel mixers) of the given layers add nothing to the residual stream.

    `only` names a part of parallel mixers: the others go on.
    """
    with _changed(modules(stack, layers, part, only), lambda _module, output: torch.zeros_like(output)):
        yield


@contextmanager
def averaged(
    stack: Stack,
    layers: Iterable[int],
    part: Part,
    means: Mapping[nn.Module, Float[Tensor, " d"]],
    only: str | None = None,
) -> Iterator[None]:
    """Make the mixers (or the channel mixers) of the given layers put out the same vector at every position."""
    with _changed(
        modules(stack, layers, part, only), lambda module, output: means[module].to(output).expand_as(output)
    ):
        yield


@contextmanager
def blocked(stack: Stack, layers: Iterable[int], block: int, only: str | None = None) -> Iterator[None]:
    """Cut the mixers of the given layers off from what lies further back than `block` to 2 `block` tokens.

    Each mixer reads its rows in windows of two blocks, one every block, of which the second gives the output: every position
    sees the `block` positions before it, and no more than 2 `block` - 1. A mixer that looks ahead reads a third block.
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
    """Return the mixers (or the channel mixers) of the given layers, or one part of their parallel mixers."""
    found: list[Any] = [getattr(stack.layers[index], part) for index in layers]
    return [module if only is None else module.parts[only] for module in found if module is not None]


@contextmanager
def _changed(changed: Iterable[nn.Module], change: Callable[[nn.Module, Tensor], Tensor]) -> Iterator[None]:
    """Replace what some modules put out."""

    def hook(module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return change(module, output)

    with ExitStack() as hooks:
        for module in changed:
            hooks.callback(module.register_forward_hook(hook).remove)
        yield


def _in_windows(
    mix: Callable[[Tensor], Tensor], block: int, ahead: int, x: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t d"]:
    """Mix a row block by block, each with the block before it and `ahead` positions after it; windows alike share a call."""
    length = x.shape[1]
    windows: dict[tuple[int, int, int], list[int]] = {}
    for first in range(0, length, block):
        end, low = min(first + block, length), max(0, first - block)
        windows.setdefault((first - low, end - low, min(end + ahead, length) - low), []).append(low)
    mixed = torch.empty_like(x)
    for (first, end, size), lows in windows.items():
        places = torch.tensor(lows, device=x.device)[:, None] + torch.arange(size, device=x.device)
        y = mix(x[:, places].flatten(0, 1)).unflatten(0, (len(x), -1))
        mixed = mixed.to(y.dtype).index_copy(1, places[:, first:end].flatten(), y[:, :, first:end].flatten(1, 2))
    return mixed
