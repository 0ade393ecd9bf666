"""Make stacks equal in size: change the free sizes of each mixer until it costs what the reference
does.

The reference is a stack of one mixer, full attention unless another is named. A matched stack comes
within 1 % of it, so any two matched stacks of the same width and depth agree within 2 %.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError
from hybridlab.stack.costs import Cost, Costs
from hybridlab.stack.free_size import FreeSize, free_sizes
from hybridlab.stack.layer import Layer, build_mixer
from hybridlab.stack.measure import forward_flops, parameters, state_after
from hybridlab.stack.plan import Plan, check_mixer_name

MATCHED = ("params", "flops", "state")
REFERENCE = "full"
TOLERANCE = 0.01  # largest difference from the reference, as a share of it
FAR, FARTHEST = 2, 4  # a size changes by at most 2**FAR where channel mixers take the rest, elsewhere by 2**FARTHEST
PASSES = 16  # at most; in each, mixers with free sizes make up for those without
STEPS, ROUNDS = 32, 2  # values tried between two powers of two, and again between two of these
NEAR = 8  # values of the first size on either side of the one found, for each of which the last size is fitted again
FINE = 8  # step of the channel mixer's hidden width


def what_and_reference(match: Any, names: Any) -> tuple[str, str]:
    """Return what `stack.match` matches and the reference's mixer, from `params` or, e.g., `{state:
    gla}`.
    """
    what, reference = (
        next(iter(match.items())) if isinstance(match, Mapping) and len(match) == 1 else (match, REFERENCE)
    )
    if what not in MATCHED:
        raise ConfigError(
            f"`stack.match={match}`: must be one of {', '.join(MATCHED)}, or e.g. {{state: gla}}, or null"
        )
    check_mixer_name(reference, f"stack.match.{what}={reference}", names)
    return what, reference


def matched(plan: Plan, what: str, length: int, reference: Layer) -> tuple[Plan, list[str]]:
    """Return the plan with its free sizes changed, and a line for each change.

    Refuse if 1 % cannot be reached.

    `what` is params, flops (of the forward pass of a sequence of `length` tokens) or state (bytes
    after such a sequence). The free sizes of each mixer are fitted first, in the order in which it
    declares them. A remaining difference in parameters or FLOPs goes to the hidden width of the
    channel mixer, the same in every layer; one in state goes to the mixers with free sizes.
    """
    if what == "state" and not plan.causal:
        raise ConfigError("`stack.match=state`: bidirectional mixers keep no state; match params or flops")
    measure = _measure(plan, what, length)
    with torch.device("meta"):
        target = _reference_cost(plan, what, measure, reference)
        takes_the_rest = what != "state" and plan.channel is not None and "expansion" in plan.channel
        costs = Costs(plan, measure)
        layers = _fit_all(plan, costs, target, once=takes_the_rest)
        mixers = costs.mean(layers)
        fitted, wanted, reached = replace(plan, layers=layers), target, mixers
        if what != "state" and plan.channel is not None:
            wanted += measure(_channel(plan, plan.channel))
            if takes_the_rest:
                fitted = replace(fitted, channel=_fit_channel(plan, plan.channel, measure, wanted - mixers, wanted))
            reached += measure(_channel(plan, fitted.channel or {}))
    off = reached / wanted - 1
    if abs(off) > TOLERANCE:
        free = ", ".join(sorted({size.name for layer in plan.layers for size in free_sizes(layer)})) or "none"
        raise ConfigError(
            f"`stack.match={what}`: the free sizes ({free}) come no nearer than {off:+.1%} to a stack of "
            f"`{reference.mixer}`; must be within {TOLERANCE:.0%}"
        )
    return fitted, [*_changes(plan, fitted), f"{what} within {off:+.2%} of the same stack of `{reference.mixer}`"]


def _reference_cost(plan: Plan, what: str, measure: Callable[[nn.Module], Cost], reference: Layer) -> Cost:
    mixer = build_mixer(reference, plan.width, plan.causal)
    where = f"`stack.match.{what}={reference.mixer}`"
    if plan.causal and not mixer.causal:
        raise ConfigError(f"{where}: sees the future, and the task is causal")
    if not (cost := measure(mixer)):
        raise ConfigError(f"{where}: has none, so nothing can be matched to it")
    return cost


def _measure(plan: Plan, what: str, length: int) -> Callable[[nn.Module], Cost]:
    if what == "params":
        return parameters
    function = forward_flops if what == "flops" else state_after
    return lambda module: function(module, plan.width, length)


def _fit_all(plan: Plan, costs: Costs, target: Cost, *, once: bool) -> tuple[Layer, ...]:
    """Fit every mixer.

    Unless `once`, mixers with free sizes make up, on average, for those without.
    """
    movable = sum(bool(free_sizes(layer)) for layer in plan.layers) / len(plan.layers)
    nearest, least, aim, far = plan.layers, math.inf, target, FAR if once else FARTHEST
    for _ in range(1 if once or not movable else PASSES):
        fitted = {layer.fingerprint: _fit(layer, costs, max(aim, 1), far) for layer in plan.distinct_mixers()}
        layers = tuple(_like(fitted[layer.fingerprint], layer) for layer in plan.layers)
        missing = target - costs.mean(layers)
        if abs(missing) < least:
            nearest, least = layers, abs(missing)
        if least <= TOLERANCE / 4 * target:
            break
        aim += missing / (movable or 1)
    return nearest


def _like(fitted: Layer, layer: Layer) -> Layer:
    """Return `layer` with the settings of `fitted`."""
    parts = zip(layer.parts, fitted.parts, strict=True)
    return replace(
        layer, settings=fitted.settings, parts=tuple(replace(old, settings=new.settings) for old, new in parts)
    )


def _fit(given: Layer, costs: Costs, target: Cost, far: int) -> Layer:
    """Fit the free sizes of one mixer, one after the other, to the target cost.

    If whole numbers leave the cost too far off, the last size is fitted again for several values of
    the first.
    """
    declared = costs.with_chosen_sizes(given)
    layer, sizes = declared, [size for size in free_sizes(given) if size.of(declared) is not None]
    for size in sizes:
        layer = _fit_size(layer, size, costs, target, far)
    if len(sizes) > 1 and abs(costs.of(layer) / target - 1) > TOLERANCE:
        first, last = sizes[0], sizes[-1]
        reached = first.of(layer)
        step = 1.0 if isinstance(reached, int) else reached / STEPS
        near = [reached + i * step for i in range(-NEAR, NEAR + 1) if reached + i * step > 0]
        unfitted = last.set(layer, last.of(declared))
        others = (_fit_size(each, last, costs, target, far) for each in _buildable(unfitted, first, costs, near))
        layer = min([layer, *others], key=lambda each: abs(costs.of(each) - target))
    for size in sizes:
        if size.of(layer) == size.of(declared):
            layer = size.set(layer, size.of(given))  # a null that did not change stays null
    return layer


def _fit_size(layer: Layer, size: FreeSize, costs: Costs, target: Cost, far: int) -> Layer:
    """Fit one size to the target cost; change it by at most `far` powers of two."""

    def is_near() -> bool:
        return abs(costs.of(layer) / target - 1) <= TOLERANCE / 4

    if is_near():
        return layer
    declared = size.of(layer)
    doublings = [layer, *_buildable(layer, size, costs, [declared * 2**i for i in range(-far, far + 1)])]
    low, high = _around(sorted(doublings, key=size.of), costs.of, target)
    for _ in range(ROUNDS):
        first, last = size.of(low), size.of(high)
        between = [first + (last - first) * i / STEPS for i in range(1, STEPS)]
        low, high = _around([low, *_buildable(low, size, costs, between), high], costs.of, target)
        # The declared size comes first, so a size that does not change the cost stays as it is.
        layer = min([layer, low, high], key=lambda each: abs(costs.of(each) - target))
        if is_near():
            break
    return layer


def _buildable(layer: Layer, size: FreeSize, costs: Costs, values: list[int | float]) -> Iterator[Layer]:
    """Yield the layer with other values of a size that the mixer accepts, smallest first."""
    whole = isinstance(size.of(layer), int)
    for value in sorted({round(each) if whole else round(each, 7) for each in values} - {size.of(layer), 0}):
        candidate = size.set(layer, value)
        if costs.accepts(candidate):
            yield candidate


def _around(sizes: list[Any], cost: Callable[[Any], Cost], target: Cost) -> tuple[Any, Any]:
    """Return the neighbours between which a growing cost passes the target, or its maximum."""
    low, high = 0, len(sizes) - 1
    target = min(target, cost(sizes[high]))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(sizes[middle]) < target else (low, middle)
    return sizes[low], sizes[high]


def _channel(plan: Plan, settings: Mapping[str, Any]) -> nn.Module:
    return build(settings, "stack.channel", width=plan.width)


def _fit_channel(
    plan: Plan, channel: dict[str, Any], measure: Callable[[nn.Module], Cost], target: Cost, whole: Cost
) -> dict[str, Any]:
    """Fit the hidden width of the channel mixer to a target cost.

    A layer of the reference costs `whole`.
    """
    if abs(measure(_channel(plan, channel)) - target) <= TOLERANCE / 4 * whole:
        return channel
    accepted = inspect.signature(find_target(channel, "stack.channel")).parameters
    fine = {"multiple": FINE} if "multiple" in accepted else {}
    most = round(channel["expansion"] * plan.width) * 2**FARTHEST
    widths = [{**channel, **fine, "expansion": round(hidden / plan.width, 5)} for hidden in range(1, most)]

    def cost(settings: dict[str, Any]) -> Cost:
        return measure(_channel(plan, settings))

    return min(_around(widths, cost, target), key=lambda each: abs(cost(each) - target))


def _changes(before: Plan, after: Plan) -> list[str]:
    """Return a line for each size that changed."""
    sizes = [
        (size.path(old), size.of(old), size.of(new))
        for old, new in zip(before.layers, after.layers, strict=True)
        for size in free_sizes(old)
    ]
    old, new = before.channel or {}, after.channel or {}
    sizes += [(f"channel.{key}", old.get(key), value) for key, value in new.items()]
    changed = [(name, "null" if old is None else old, new) for name, old, new in sizes if old != new]
    return list(dict.fromkeys(f"{name}: {old} → {new}" for name, old, new in changed))
