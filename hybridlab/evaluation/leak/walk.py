"""The whole stack under a run's own conditions, layer by layer.

Tokens are changed, and each mixer and channel mixer must put out what it did before wherever its
position has not seen the change. What has not changed is handed on exactly as before, so that
rounding does not add up over layers, and the first layer that leaks is the one that is named.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from hybridlab.evaluation.leak.changes import STILL, Change
from hybridlab.evaluation.leak.finding import Kind, Leak
from hybridlab.evaluation.leak.modes import Mode, Precision, calling
from hybridlab.evaluation.leak.rounding import EXACT, is_rounding, moved, share_moved
from hybridlab.stack.model import Stack


@dataclass(frozen=True)
class Site:
    """A module of a layer whose outputs are compared."""

    layer: int
    part: str  # mixer | channel | layer
    module: Any


@dataclass
class Watch:
    """What the sites put out for the tokens as they were, and what has moved since."""

    outputs: dict[int, Tensor] = field(default_factory=dict)
    change: Change | None = None
    suspects: list[tuple[int, Tensor, tuple[Any, ...], float]] = field(default_factory=list)

    def hook(self, number: int) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        """Return the forward hook of a site."""

        def compare(_module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
            if self.change is None:
                self.outputs[number] = output.detach().clone()
                return None
            before, fixed = self.outputs[number], self.change.fixed
            shift = moved(before, output.detach()).where(fixed, 0)
            if bool((shift > EXACT).any()):
                self.suspects.append((number, shift, inputs, share_moved(before, output.detach(), fixed)))
            return torch.where(fixed[..., None], before.to(output.dtype), output)

        return compare


def walk(
    stack: Stack,
    tokens: Int[Tensor, "b t"],
    documents: Int[Tensor, "b t"] | None,
    tried: list[Change],
    mode: Mode,
    precision: Precision,
) -> Iterator[tuple[Site, Leak]]:
    """Yield the leaks of a stack, each with its site, for some changes of tokens."""
    sites, watch = sites_of(stack, packed=documents is not None), Watch()
    hooks = [site.module.register_forward_hook(watch.hook(number)) for number, site in enumerate(sites)]
    try:
        _run(stack, tokens, documents, mode, precision)
        for number, output in sorted(watch.outputs.items()):
            bad = (~output.isfinite()).any(-1).any(0).nonzero()
            if len(bad):
                at = int(bad[0])
                name = f"{mode}, in {precision.name}"
                yield sites[number], Leak(tokens.shape[1], at, at, torch.inf, Kind.NOT_FINITE, name)
                return
        for change in tried:
            watch.change, watch.suspects = change, []
            _run(stack, change.tokens, documents, mode, precision)
            for number, shift, inputs, share in watch.suspects:
                again = _again(sites[number].module, inputs, mode, precision)
                if not is_rounding(again, inputs[0].detach(), shift, change.fixed, share):
                    yield sites[number], _leak(shift, change, documents, f"{mode}, in {precision.name}")
    finally:
        for hook in hooks:
            hook.remove()


def sites_of(stack: Stack, *, packed: bool) -> list[Site]:
    """Return the mixers and channel mixers of a stack; whole layers if its sequences are packed,
    since mixers then read documents.
    """
    if packed:
        return [Site(index, "layer", layer) for index, layer in enumerate(stack.layers)]
    found = []
    for index, layer in enumerate(stack.layers):
        found.append(Site(index, "mixer", layer.mixer))
        if layer.channel is not None:
            found.append(Site(index, "channel", layer.channel))
    return found


def _run(stack: Stack, tokens: Tensor, documents: Tensor | None, mode: Mode, precision: Precision) -> None:
    with calling(stack, mode, precision):
        stack.hidden(tokens, documents)


def _again(module: nn.Module, inputs: Any, mode: Mode, precision: Precision) -> Callable[[Tensor], Tensor]:
    """Return a function that calls a site's module again, without hooks."""

    def call(x: Tensor) -> Tensor:
        with calling(module, mode, precision):
            return module.forward(x, *inputs[1:]).detach()

    return call


def _leak(shift: Tensor, change: Change, documents: Tensor | None, mode: str) -> Leak:
    """Return the leak of the worst sequence, at the first position that moved about as much as
    any."""
    row = STILL if bool((shift[STILL] > EXACT).any()) else int(shift.amax(1).argmax())
    position = int((shift[row] > max(EXACT, float(shift[row].max()) / 100)).nonzero()[0])
    kind, cut = Kind.BATCH if row == STILL else Kind.FUTURE, change.cuts[row]
    if row != STILL and documents is not None and documents[row, position] != documents[row, cut + 1]:
        kind = Kind.DOCUMENTS
    return Leak(shift.shape[1], cut, position, float(shift[row, position]), kind, mode)
