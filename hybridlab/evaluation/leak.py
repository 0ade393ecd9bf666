"""The leak gate: does anything at or before position t move when what comes after t changes?

Perturbation in float64, not gradients: a choice (top-k, argmax, a sort) hides a leak from the gradient, not from a change
of the input.
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

# A prefix may move by rounding alone: a fast Fourier transform in float64 leaves about 1e-15 of the output's size.
TOLERANCE = 1e-9
LENGTHS = (1, 2, 7, 16, 33, 63, 64, 65, 129)
LONGEST = 1024

_passed: set[tuple[Any, ...]] = set()  # what this process has probed: the runs of a sweep share most of their mixers


@dataclass(frozen=True)
class Leak:
    """The first sight of the future: in a row of `length`, changing what comes after `cut` moved `position`."""

    length: int
    cut: int
    position: int
    moved: float  # largest change at that position, relative to the output's size


def mixer_leak(mixer: nn.Module, width: int, lengths: Iterable[int], seed: int = 0) -> Leak | None:
    """Probe one mixer, [b, t, d] -> [b, t, d], on rows of noise. Its weights are those of a perturbed copy."""
    return _first_leak(mixer, lambda length: torch.randn(1, length, width, dtype=torch.float64), lengths, seed)


def stack_leak(stack: Stack, lengths: Iterable[int], seed: int = 0) -> Leak | None:
    """Probe a whole stack, tokens [b, t] -> residual stream [b, t, d], on rows of random tokens.

    Reading is left out: it keeps to its own position, or is of whole rows by design.
    """
    vocabulary, layers = stack.embedding.num_embeddings, nn.Sequential(stack.embedding, *stack.layers)
    return _first_leak(layers, lambda length: torch.randint(vocabulary, (1, length)), lengths, seed)


def probe_lengths(settings: dict[str, Any], row: int) -> list[int]:
    """Return the lengths to probe: short ones, and those around each size among the hyper-parameters and the row's length.

    A leak may show only where a block begins, ends or is complete, and block sizes are hyper-parameters.
    """
    around = {near for size in _sizes(settings) for near in (size - 1, size, size + 1, 2 * size + 1)}
    return sorted(length for length in around | {*LENGTHS, min(row, LONGEST)} if 1 <= length <= LONGEST)


def _sizes(settings: Mapping[str, Any]) -> set[int]:
    """Return the whole numbers above 1 among the hyper-parameters, those of parallel parts too."""
    found = set()
    for value in settings.values():
        if isinstance(value, Mapping):
            found |= _sizes(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 1:
            found.add(value)
    return found


def check_plan(plan: Plan, stack: Stack, row: int) -> list[str]:
    """Probe every distinct mixer of the plan and the whole stack; return a line for each, or refuse with ConfigError.

    What has passed in this process, with the same settings at the same lengths, is not probed again.
    """
    if not plan.causal:
        return ["not needed: the task lets every position see its whole row"]
    lines = []
    for layer in plan.distinct_mixers():
        lengths = probe_lengths(layer.all_settings(), row)
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
    """Stop with one line if there is a leak."""
    if leak is not None:
        raise ConfigError(
            f"{what} sees the future: in a row of {leak.length}, changing what comes after position {leak.cut} "
            f"moved position {leak.position} (by {leak.moved:.2g} of the output's size)"
        )


def _mixer_of(stack: Stack, layer: Layer) -> nn.Module:
    return stack.layers[layer.index].mixer  # type: ignore[return-value]


def _first_leak(module: nn.Module, draw: Callable[[int], Tensor], lengths: Iterable[int], seed: int) -> Leak | None:
    with _probe(module, seed) as probe:
        for length in lengths:
            row = draw(length)
            reference = probe(row)
            for cut in _cuts(length):
                changed = row.clone()
                changed[:, cut + 1 :] = (
                    draw(length)[:, cut + 1 :] * 3 if row.is_floating_point() else draw(length)[:, cut + 1 :]
                )
                moved = _moved(reference, probe(changed))[: cut + 1]
                if (position := _first_above(moved)) is not None:
                    return Leak(length, cut, position, float(moved[position]))
    return None


def _cuts(length: int) -> list[int]:
    """Return the last unchanged position of each trial: near both ends, and spread between them."""
    return sorted({cut for cut in (0, 1, length // 3, length // 2, length - 9, length - 2) if 0 <= cut <= length - 2})


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """Return by how much each position of the (only) row moved, relative to the output's size; what is not finite moved."""
    scale = before.abs().amax().clamp(min=1e-30)
    moved = ((after - before).abs().amax(dim=-1) / scale)[0]
    return torch.where(moved.isfinite(), moved, torch.inf)


def _first_above(moved: Tensor) -> int | None:
    above = (moved > TOLERANCE).nonzero()
    return int(above[0]) if len(above) else None


@contextmanager
def _probe(module: nn.Module, seed: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """Give a float64 copy to call on the CPU, in training mode, with the same random numbers at every call.

    Training is where a leak does harm. Noise on the weights opens paths that an initialisation by zeros would hide.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        probe = copy.deepcopy(module).to("cpu", torch.float64).train()
        for parameter in probe.parameters():
            parameter += 0.1 * torch.randn_like(parameter)

        def call(row: Tensor) -> Tensor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return probe(row)

        yield call
