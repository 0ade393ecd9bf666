"""The leak gate: does any output at or before position t change when the inputs after t change?

It perturbs inputs in float64 instead of taking gradients: a choice (top-k, argmax, a sort) hides a
leak from the gradient, but not from a change of the input.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hybridlab.errors import ConfigError
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import Layer, Plan

# Rounding alone changes a prefix: a fast Fourier transform in float64 by about 1e-15 of the
# output's magnitude.
TOLERANCE = 1e-9
LENGTHS = (1, 2, 7, 16, 33, 63, 64, 65, 129)
LONGEST = 1024

_passed: set[tuple[Any, ...]] = set()  # by this process: the runs of a sweep share most mixers


@dataclass(frozen=True)
class Leak:
    """The first leak found: in a sequence of `length`, changing the inputs after `cut` changed the
    output at `position`.
    """

    length: int
    cut: int
    position: int
    moved: float  # largest change there, relative to the output's magnitude


def mixer_leak(mixer: nn.Module, width: int, lengths: Iterable[int], seed: int = 0) -> Leak | None:
    """Probe a copy of one mixer, [b, t, d] -> [b, t, d], with perturbed weights, on noise."""
    return _first_leak(mixer, lambda length: torch.randn(1, length, width, dtype=torch.float64), lengths, seed)


def stack_leak(stack: Stack, lengths: Iterable[int], seed: int = 0) -> Leak | None:
    """Probe a whole stack, tokens [b, t] -> residual stream [b, t, d], on random tokens.

    The readout is left out: it uses its own position alone, or the whole sequence by design.
    """
    vocabulary, layers = stack.embedding.num_embeddings, nn.Sequential(stack.embedding, *stack.layers)
    return _first_leak(layers, lambda length: torch.randint(vocabulary, (1, length)), lengths, seed)


def probe_lengths(settings: dict[str, Any], task_length: int) -> list[int]:
    """Return the lengths to probe: short ones, and those around the task's length and around each
    whole number among the hyper-parameters.

    A leak may show only at a block's boundary, and block sizes are hyper-parameters.
    """
    around = {near for size in _sizes(settings) for near in (size - 1, size, size + 1, 2 * size + 1)}
    return sorted(length for length in around | {*LENGTHS, min(task_length, LONGEST)} if 1 <= length <= LONGEST)


def _sizes(settings: Mapping[str, Any]) -> set[int]:
    """Return the whole numbers above 1 among the hyper-parameters, including those of parallel
    parts."""
    found = set()
    for value in settings.values():
        if isinstance(value, Mapping):
            found |= _sizes(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 1:
            found.add(value)
    return found


def check_plan(plan: Plan, stack: Stack, task_length: int) -> list[str]:
    """Probe every distinct mixer of the plan and the whole stack; return a line for each.

    A leak raises ConfigError. What has passed in this process with the same settings at the same
    lengths is not probed again.
    """
    if not plan.causal:
        return ["not needed: in this task every position sees the whole sequence"]
    lines = []
    for layer in plan.distinct_mixers():
        lengths = probe_lengths(layer.all_settings(), task_length)
        key = (layer.fingerprint, plan.width, plan.causal, *lengths)
        if key not in _passed:
            refuse(mixer_leak(_mixer_of(stack, layer), plan.width, lengths), f"mixer `{layer.mixer}` ({layer.where})")
            _passed.add(key)
        lines.append(f"{layer.mixer}: no leak at {len(lengths)} lengths up to {lengths[-1]}")
    lengths = [1, 7, 33, 65]
    key = (*(layer.fingerprint for layer in plan.layers), str(plan.channel), plan.width, plan.causal)
    if key not in _passed:
        refuse(stack_leak(stack, lengths), "the whole stack")
        _passed.add(key)
    lines.append(f"whole stack: no leak at {len(lengths)} lengths up to {lengths[-1]}")
    return lines


def refuse(leak: Leak | None, what: str) -> None:
    """Raise a ConfigError if there is a leak."""
    if leak is not None:
        raise ConfigError(
            f"{what} sees the future: in a sequence of {leak.length}, changing the inputs after position {leak.cut} "
            f"changed the output at position {leak.position} (by {leak.moved:.2g} of its magnitude)"
        )


def _mixer_of(stack: Stack, layer: Layer) -> nn.Module:
    return stack.layers[layer.index].mixer  # type: ignore[return-value]


def _first_leak(module: nn.Module, draw: Callable[[int], Tensor], lengths: Iterable[int], seed: int) -> Leak | None:
    with _probe(module, seed) as probe:
        for length in lengths:
            x = draw(length)
            reference = probe(x)
            for cut in _cuts(length):
                changed = x.clone()
                changed[:, cut + 1 :] = (
                    draw(length)[:, cut + 1 :] * 3 if x.is_floating_point() else draw(length)[:, cut + 1 :]
                )
                moved = _moved(reference, probe(changed))[: cut + 1]
                if (position := _first_above(moved)) is not None:
                    return Leak(length, cut, position, float(moved[position]))
    return None


def _cuts(length: int) -> list[int]:
    """Return the last unchanged position of each trial: near both ends, and between them."""
    return sorted({cut for cut in (0, 1, length // 3, length // 2, length - 9, length - 2) if 0 <= cut <= length - 2})


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """Return how much each position of the only sequence changed, relative to the output's
    magnitude; a value that is not finite counts as changed.
    """
    scale = before.abs().amax().clamp(min=1e-30)
    moved = ((after - before).abs().amax(dim=-1) / scale)[0]
    return torch.where(moved.isfinite(), moved, torch.inf)


def _first_above(moved: Tensor) -> int | None:
    above = (moved > TOLERANCE).nonzero()
    return int(above[0]) if len(above) else None


@contextmanager
def _probe(module: nn.Module, seed: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield a float64 copy to call on the CPU, in training mode, with the same random numbers at
    every call.

    A leak does harm in training. Noise on the weights opens paths that an initialisation by zeros
    would hide.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        probe = copy.deepcopy(module).to("cpu", torch.float64).train()
        for parameter in probe.parameters():
            parameter += 0.1 * torch.randn_like(parameter)

        def call(x: Tensor) -> Tensor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return probe(x)

        yield call
