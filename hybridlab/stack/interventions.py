"""Changes of a trained stack for the time of a measurement, by forward hooks."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from hybridlab.stack.model import Stack

Part = Literal["mixer", "channel"]


@contextmanager
def silenced(stack: Stack, layers: Iterable[int], part: Part, only: str | None = None) -> Iterator[None]:
    """Make the mixers (or the channel mixers) of the given layers add nothing to the residual stream.

    `only` names a part of parallel mixers: the others go on.
    The hooks work on the eager stack only: a compiled one ignores hooks that come after its compilation.
    """
    with ExitStack() as hooks:
        for index in layers:
            module: Any = getattr(stack.layers[index], part)
            module = module if only is None else module.parts[only]
            if module is not None:
                hooks.enter_context(_hook(module))
        yield


@contextmanager
def _hook(module: torch.nn.Module) -> Iterator[None]:
    def silence(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    handle = module.register_forward_hook(silence)
    try:
        yield
    finally:
        handle.remove()
