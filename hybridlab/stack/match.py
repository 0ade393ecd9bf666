"""Make stacks equal in size: each mixer's free sizes are moved until its cost is that of the reference's layer.

The reference is one mixer throughout, full attention unless another is named. Each comes within 1 % of it, so stacks of one
width and depth that are matched agree with one another within 2 %.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError
from hybridlab.stack.layer import Layer, build_mixer
from hybridlab.stack.measure import forward_flops, parameters, state_after
from hybridlab.stack.plan import Plan, check_mixer_name

MATCHED = ("params", "flops", "state")
REFERENCE = "full"
TOLERANCE = 0.01  # of the reference: any two that agree with it to this agree within 2 %
FAR, FARTHEST = 2, 4  # powers of two that a size is moved at most where channel mixers take the rest, and elsewhere
PASSES = 16  # at most, in which mixers that can be moved make up for those that cannot
STEPS, ROUNDS = 32, 2  # sizes tried between two powers of two, and then between two of these
FINE = 8  # the channel mixer's hidden width goes in steps of this


@dataclass(frozen=True)
class FreeSize:
    """A hyper-parameter of a layer's mixer, or of one part of a parallel one, that may be moved."""

    part: int | None
    name: str

    def of(self, layer: Layer) -> Any:
        """Return its value."""
        return (layer if self.part is None else layer.parts[self.part]).settings[self.name]

    def path(self, layer: Layer) -> str:
        """Name it, with the mixer that it belongs to."""
        return ".".join([layer.mixer, *([] if self.part is None else [layer.part_names()[self.part]]), self.name])

    def moved(self, layer: Layer, value: Any) -> Layer:
        """Return the layer with another value of it."""
        if self.part is None:
            return replace(layer, settings={**layer.settings, self.name: value})
        part = layer.parts[self.part]
        part = replace(part, settings={**part.settings, self.name: value})
        return replace(layer, parts=(*layer.parts[: self.part], part, *layer.parts[self.part + 1 :]))


def what_and_reference(match: Any, names: Any) -> tuple[str, str]:
    """Read `stack.match`: `params`, or `{state: gla}`, which names the mixer of the reference."""
    what, reference = (
        next(iter(match.items())) if isinstance(match, Mapping) and len(match) == 1 else (match, REFERENCE)
    )
    if what not in MATCHED:
        raise ConfigError(
            f"`stack.match={match}`: one of {', '.join(MATCHED)} is needed, or e.g. {{state: gla}}, or null"
        )
    check_mixer_name(reference, f"stack.match.{what}={reference}", names)
    return what, reference


def matched(plan: Plan, what: str, length: int, reference: Layer) -> tuple[Plan, list[str]]:
    """Return the plan with its free sizes moved, and a line for each change; refuse if 1 % cannot be reached.

    `what` is params, flops (forward, of a row of `length` tokens) or state (its bytes after such a row). First the sizes
    that a mixer declares as free, in its order; what is then left of a difference in parameters or FLOPs is given to the
    width of all channel mixers alike, and one in state to the mixers that can be moved.
    """
    if what == "state" and not plan.causal:
        raise ConfigError("`stack.match=state`: what reads a row both ways keeps no state; match params or flops")
    measure = _measure(plan, what, length)
    with torch.device("meta"):
        target = _reference_cost(plan, what, measure, reference)
        takes_the_rest = what != "state" and plan.channel is not None and "expansion" in plan.channel
        layers = _fit_all(plan, measure, target, once=takes_the_rest)
        mixers = _mean(layers, plan, measure)
        found, wanted, reached = replace(plan, layers=layers), target, mixers
        if what != "state" and plan.channel is not None:
            wanted += measure(_channel(plan, plan.channel))
            if takes_the_rest:
                found = replace(found, channel=_fit_channel(plan, plan.channel, measure, wanted - mixers, wanted))
            reached += measure(_channel(plan, found.channel or {}))
    off = reached / wanted - 1
    if abs(off) > TOLERANCE:
        free = ", ".join(sorted({size.name for layer in plan.layers for size in _free(layer)})) or "none"
        raise ConfigError(
            f"`stack.match={what}`: the nearest that the free sizes ({free}) allow is {off:+.1%} of a stack of "
            f"`{reference.mixer}`, and at most {TOLERANCE:.0%} is needed"
        )
    return found, [*_changes(plan, found), f"{what} within {off:+.2%} of the same stack of `{reference.mixer}`"]


def _reference_cost(plan: Plan, what: str, measure: Callable[[nn.Module], float], reference: Layer) -> float:
    mixer = build_mixer(reference, plan.width, plan.causal)
    where = f"`stack.match.{what}={reference.mixer}`"
    if plan.causal and not mixer.causal:
        raise ConfigError(f"{where}: sees the future, and the task is causal")
    if not (cost := measure(mixer)):
        raise ConfigError(f"{where}: has none, and nothing can be matched to nothing")
    return cost


def _measure(plan: Plan, what: str, length: int) -> Callable[[nn.Module], float]:
    if what == "params":
        return parameters
    function = forward_flops if what == "flops" else state_after
    return lambda module: function(module, plan.width, length)


def _fit_all(plan: Plan, measure: Callable[[nn.Module], float], target: float, *, once: bool) -> tuple[Layer, ...]:
    """Fit every mixer; unless `once`, those that can be moved make up, on average, for those that cannot."""
    movable = sum(bool(_free(layer)) for layer in plan.layers) / len(plan.layers)
    nearest, least, aim, far = plan.layers, math.inf, target, FAR if once else FARTHEST
    for _ in range(1 if once or not movable else PASSES):
        fitted = {layer.fingerprint: _fit(layer, plan, measure, max(aim, 1), far) for layer in plan.distinct_mixers()}
        layers = tuple(_like(fitted[layer.fingerprint], layer) for layer in plan.layers)
        missing = target - _mean(layers, plan, measure)
        if abs(missing) < least:
            nearest, least = layers, abs(missing)
        if least <= TOLERANCE / 4 * target:
            break
        aim += missing / (movable or 1)
    return nearest


def _mean(layers: tuple[Layer, ...], plan: Plan, measure: Callable[[nn.Module], float]) -> float:
    return sum(measure(build_mixer(layer, plan.width, plan.causal)) for layer in layers) / len(layers)


def _free(layer: Layer) -> list[FreeSize]:
    """Return what may be moved; a size that is left to the mixer, null, is not."""
    parts = enumerate(layer.parts) if layer.parts else [(None, layer)]
    sizes = [FreeSize(i, name) for i, part in parts for name in find_target(part.settings, part.where).free_sizes]
    return [size for size in sizes if size.of(layer) is not None]


def _like(fitted: Layer, layer: Layer) -> Layer:
    """Return a layer with the sizes of a fitted one."""
    parts = zip(layer.parts, fitted.parts, strict=True)
    return replace(
        layer, settings=fitted.settings, parts=tuple(replace(old, settings=new.settings) for old, new in parts)
    )


def _fit(layer: Layer, plan: Plan, measure: Callable[[nn.Module], float], target: float, far: int) -> Layer:
    """Move the free sizes of one mixer, each in its turn, to where its cost is nearest to the target."""

    def cost(candidate: Layer) -> float:
        return measure(build_mixer(candidate, plan.width, plan.causal))

    for size in _free(layer):
        if abs(cost(layer) / target - 1) <= TOLERANCE / 4:
            break
        declared = size.of(layer)
        doublings = [layer, *_buildable(layer, size, plan, [declared * 2**i for i in range(-far, far + 1)])]
        low, high = _around(sorted(doublings, key=size.of), cost, target)
        for _ in range(ROUNDS):
            first, last = size.of(low), size.of(high)
            between = [first + (last - first) * i / STEPS for i in range(1, STEPS)]
            near = [low, *_buildable(low, size, plan, between), high]
            low, high = _around(near, cost, target)
            # The declared size comes first: a size that moves nothing stays.
            layer = min([layer, low, high], key=lambda each: abs(cost(each) - target))
            if abs(cost(layer) / target - 1) <= TOLERANCE / 4:
                break
    return layer


def _buildable(layer: Layer, size: FreeSize, plan: Plan, values: list[float]) -> Iterator[Layer]:
    """Yield the layer with other values of a size, growing; those that the mixer refuses are left out."""
    whole = isinstance(size.of(layer), int)
    for value in sorted({round(each) if whole else round(each, 7) for each in values} - {size.of(layer), 0}):
        candidate = size.moved(layer, value)
        try:
            build_mixer(candidate, plan.width, plan.causal)
        except ConfigError:
            continue
        yield candidate


def _around(sizes: list[Any], cost: Callable[[Any], float], target: float) -> tuple[Any, Any]:
    """Return the two neighbours between which a growing cost passes the target, or first comes to the most it can be."""
    low, high = 0, len(sizes) - 1
    target = min(target, cost(sizes[high]))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(sizes[middle]) < target else (low, middle)
    return sizes[low], sizes[high]


def _channel(plan: Plan, settings: Mapping[str, Any]) -> nn.Module:
    return build(settings, "stack.channel", width=plan.width)


def _fit_channel(
    plan: Plan, channel: dict[str, Any], measure: Callable[[nn.Module], float], target: float, whole: float
) -> dict[str, Any]:
    """Widen or narrow the channel mixer until it costs the target; a layer of the reference costs `whole`."""
    if abs(measure(_channel(plan, channel)) - target) <= TOLERANCE / 4 * whole:
        return channel
    accepted = inspect.signature(find_target(channel, "stack.channel")).parameters
    fine = {"multiple": FINE} if "multiple" in accepted else {}
    most = round(channel["expansion"] * plan.width) * 2**FARTHEST
    widths = [{**channel, **fine, "expansion": round(hidden / plan.width, 5)} for hidden in range(1, most)]

    def cost(settings: dict[str, Any]) -> float:
        return measure(_channel(plan, settings))

    return min(_around(widths, cost, target), key=lambda each: abs(cost(each) - target))


def _changes(before: Plan, after: Plan) -> list[str]:
    """Say each size that was moved, once."""
    moved = [
        (size.path(old), size.of(old), size.of(new))
        for old, new in zip(before.layers, after.layers, strict=True)
        for size in _free(old)
    ]
    old, new = before.channel or {}, after.channel or {}
    moved += [(f"channel.{key}", old.get(key), value) for key, value in new.items()]
    return list(dict.fromkeys(f"{name}: {old} → {new}" for name, old, new in moved if old != new))
