"""Make stacks equal in size: each mixer's free sizes are moved until its cost is that of the reference's layer.

The reference is full attention, so stacks of one width and depth that are matched each agree with one another.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError
from hybridlab.stack.layer import Layer, build_mixer
from hybridlab.stack.measure import forward_flops, parameters, state_after
from hybridlab.stack.plan import Plan

MATCHED = ("params", "flops", "state")
REFERENCE = "full"
TOLERANCE = 0.02
CANDIDATES = 64  # sizes tried, from a sixteenth of the declared size to four times it
FINE = 8  # the channel mixer's hidden width goes in steps of this


def matched(plan: Plan, what: str, length: int, reference: Layer) -> tuple[Plan, list[str]]:
    """Return the plan with its free sizes moved, and a line for each change; refuse if 2 % cannot be reached.

    `what` is params, flops (forward, of a row of `length` tokens) or state (its bytes after such a row). First the sizes
    that a mixer declares as free, in its order; what is then left of a difference in parameters or FLOPs is given to the
    width of all channel mixers alike.
    """
    if what not in MATCHED:
        raise ConfigError(f"`stack.match={what}`: one of {', '.join(MATCHED)} is needed, or null")
    measure = _measure(plan, what, length)
    with torch.device("meta"):
        target = measure(build_mixer(reference, plan.width, plan.causal))
        fitted = {layer.fingerprint: _fit(layer, plan, measure, target) for layer in plan.distinct_mixers()}
        layers = tuple(replace(layer, settings=fitted[layer.fingerprint].settings) for layer in plan.layers)
        reached = sum(measure(build_mixer(layer, plan.width, plan.causal)) for layer in layers)
        found = replace(plan, layers=layers)
        if what != "state" and plan.channel is not None:
            found = replace(found, channel=_fit_channel(plan, what, length, target - reached / len(layers)))
            per_layer = measure(build(found.channel or {}, "stack.channel", width=plan.width))
            wanted = target + measure(build(plan.channel, "stack.channel", width=plan.width))
        else:
            per_layer, wanted = 0, target
    off = (reached / len(layers) + per_layer) / wanted - 1
    if abs(off) > TOLERANCE:
        free = ", ".join(sorted({name for layer in plan.layers for name in _free(layer)})) or "none"
        raise ConfigError(
            f"`stack.match={what}`: the nearest that the free sizes ({free}) allow is {off:+.1%} of a stack of "
            f"`{REFERENCE}`, and at most {TOLERANCE:.0%} is needed"
        )
    return found, [*_changes(plan, found), f"{what} within {off:+.2%} of the same stack of `{REFERENCE}`"]


def _measure(plan: Plan, what: str, length: int) -> Callable[[nn.Module], float]:
    if what == "params":
        return parameters
    function = forward_flops if what == "flops" else state_after
    return lambda module: function(module, plan.width, length)


def _free(layer: Layer) -> tuple[str, ...]:
    return find_target(layer.settings, layer.where).free_sizes


def _fit(layer: Layer, plan: Plan, measure: Callable[[nn.Module], float], target: float) -> Layer:
    """Move the free sizes of one mixer, each in its turn, to where its cost is nearest to the target."""

    def cost(candidate: Layer) -> float:
        return measure(build_mixer(candidate, plan.width, plan.causal))

    for name in _free(layer):
        if abs(cost(layer) / target - 1) <= TOLERANCE / 4:
            break
        sizes = [layer, *_buildable(layer, name, plan)]
        sizes.sort(key=lambda each: each.settings[name])
        layer = min(_around(sizes, cost, target), key=lambda each: abs(cost(each) - target))
    return layer


def _buildable(layer: Layer, name: str, plan: Plan) -> Iterator[Layer]:
    """Yield the layer with other values of a size; those that the mixer refuses are left out."""
    declared = layer.settings[name]
    step = declared * 4 / CANDIDATES
    values = {round(step * n) if isinstance(declared, int) else step * n for n in range(1, CANDIDATES + 1)}
    for value in sorted(values - {declared, 0}):
        candidate = replace(layer, settings={**layer.settings, name: value})
        try:
            build_mixer(candidate, plan.width, plan.causal)
        except ConfigError:
            continue
        yield candidate


def _around(sizes: list[Layer], cost: Callable[[Layer], float], target: float) -> list[Layer]:
    """Return the two neighbours between which a growing cost passes the target."""
    low, high = 0, len(sizes) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(sizes[middle]) < target else (low, middle)
    return [sizes[low], sizes[high]]


def _fit_channel(plan: Plan, what: str, length: int, missing: float) -> dict[str, Any]:
    """Widen or narrow the channel mixer by what the mixers of a layer lack, or have too much, on average."""
    measure, channel = _measure(plan, what, length), plan.channel or {}
    if "expansion" not in channel or not missing:
        return channel
    declared = measure(build(channel, "stack.channel", width=plan.width))
    expansion = channel["expansion"] * max(1 + missing / declared, 1 / plan.width)
    fine = {"multiple": FINE} if "multiple" in channel else {}
    return {**channel, "expansion": round(expansion, 4), **fine}


def _changes(before: Plan, after: Plan) -> list[str]:
    """Say each size that was moved, once."""
    pairs = [(f"{old.mixer}.{key}", old.settings[key], value)
             for old, new in zip(before.layers, after.layers, strict=True)
             for key, value in new.settings.items()]  # fmt: skip
    pairs += [
        (f"channel.{key}", (before.channel or {}).get(key), value) for key, value in (after.channel or {}).items()
    ]
    return list(dict.fromkeys(f"{name}: {old} → {new}" for name, old, new in pairs if old != new))
