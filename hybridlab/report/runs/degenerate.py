"""Mixers that their settings turn into another one, and stacks that are the same for that reason.

A window of at least the sequence is no window: `sliding` is then `full`, and a comparison of the
two compares a stack with itself.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hybridlab.records.json_values import to_text
from hybridlab.records.record import RunRecord
from hybridlab.report.runs.stack_runs import StackRuns

HELD_OUT = ("test", "validation", "train")  # splits of numbers that depend on what a stack computes


class Becomes(NamedTuple):
    """Another mixer that a mixer is, with its settings, and why."""

    mixer: dict[str, Any]
    why: str


def longest(record: RunRecord) -> int | None:
    """Return the tokens of the longest sequence that a run's mixers read at once, if it is
    known."""
    task: dict[str, Any] = record.config.get("task") or {}
    segments = [each for key in ("training", "evaluation") for each in task.get(key) or () if isinstance(each, dict)]
    lengths = [task.get("length"), *(each.get("length") for each in segments)]
    lengths += [each.get("window") for each in record.evaluations.values()]
    known = [length for length in lengths if isinstance(length, int)]
    return max(known, default=None)


def becomes(settings: dict[str, Any], length: int) -> Becomes | None:
    """Return the mixer that one with these settings is on sequences of at most `length` tokens."""
    name = _class(settings)
    number = {key: value for key, value in settings.items() if isinstance(value, int)}
    within = f"sequences of {length:,}"
    match name:
        case "Sliding" if number.get("window", 0) >= length:
            return Becomes(_full(settings), f"a window of {number['window']:,} covers {within}: `sliding` is `full`")
        case "Sliding" if number.get("global_tokens", 0) >= length:
            return Becomes(
                _full(settings), f"{number['global_tokens']:,} global tokens cover {within}: `sliding` is `full`"
            )
        case "Dilated" if number.get("dilation") == 1:
            plain = {**settings, "_target_": "Sliding", "global_tokens": 0}
            further = becomes(plain, length)
            why = "a dilation of 1 leaves no gaps: `dilated` is `sliding`"
            return Becomes(further.mixer, f"{why}, and {further.why}") if further else Becomes(plain, why)
        case "Strided" if number.get("stride", 0) >= length or number.get("stride") == 1:
            return Becomes(
                _full(settings), f"a stride of {number['stride']:,} leaves out none of {within}: `strided` is `full`"
            )
        case "Moba" if (blocks := _blocks(number, length)) and number.get("top_k", 0) >= blocks:
            return Becomes(
                _full(settings), f"{number['top_k']} of the {blocks} blocks of {within} are all: `moba` is `full`"
            )
        case "Bigbird" if (blocks := _blocks(number, length)) and (
            seen := sum(number.get(f"{kind}_blocks", 0) for kind in ("window", "global", "random"))
        ) >= blocks:
            return Becomes(_full(settings), f"{seen} of the {blocks} blocks of {within} are all: `bigbird` is `full`")
    return None


def degenerate(record: RunRecord) -> list[str]:
    """Return why mixers of a run's stack are other ones, each reason once."""
    return list(dict.fromkeys(why for layer in record.plan for why in _simplest(layer["settings"], longest(record))[1]))


def same_stack(one: StackRuns, other: StackRuns) -> str:
    """Return why two stacks of different choices are the same one, "" if they are not known to be.

    They are if their layers are, once each mixer is called what its settings make it, or if all
    numbers of their common seeds are equal, those of the learning curves included.
    """
    before, after = _plan(one), _plan(other)
    if before and after and before.layers == after.layers and _elsewhere(one) == _elsewhere(other):
        whys = dict.fromkeys([*before.whys, *after.whys])
        return "; ".join(whys) or "their layers are the same"
    return "all their numbers are the same, with every seed" if _same_numbers(one, other) else ""


def identical(stacks: Sequence[StackRuns]) -> Iterator[tuple[StackRuns, StackRuns, str]]:
    """Yield the pairs of stacks that are the same, each with the first that it repeats, and why."""
    for index, stack in enumerate(stacks):
        for before in stacks[:index]:
            if why := same_stack(before, stack):
                yield before, stack, why
                break


def _class(settings: dict[str, Any]) -> str:
    return str(settings.get("_target_")).rpartition(".")[2]


def _full(settings: dict[str, Any]) -> dict[str, Any]:
    """Return full attention with the heads and positions of an attention mixer."""
    return _with_defaults({"_target_": "Full", **{key: settings[key] for key in _SHARED if key in settings}})


_SHARED = ("heads", "kv_heads", "rope", "qk_norm")


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without those that change nothing but the speed, with equal ones spelt
    alike."""
    found = {key: value for key, value in settings.items() if key != "chunk"} | {"_target_": _class(settings)}
    if "heads" in found and "kv_heads" in found:
        found["kv_heads"] = found["kv_heads"] or found["heads"]
    return found | ({"qk_norm": found.get("qk_norm", False)} if _class(settings) in ("Full", "Sliding") else {})


def _blocks(number: dict[str, int], length: int) -> int:
    return math.ceil(length / number["block"]) if number.get("block") else 0


def _simplest(settings: Any, length: int | None) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of the mixer that a mixer is, and why, part by part."""
    found = becomes(settings, length) if length else None
    if found:
        return _with_defaults(found.mixer), [found.why]
    whys: list[str] = []
    simple = _with_defaults(settings)
    if isinstance(parts := settings.get("parts"), dict):
        simplest = {key: _simplest(part, length) for key, part in parts.items()}
        simple["parts"] = {key: part for key, (part, _) in simplest.items()}
        whys = [why for _, found in simplest.values() for why in found]
    if "chunk" in settings:
        whys.append("`chunk` changes only how it is computed")
    return simple, whys


class _Plan(NamedTuple):
    layers: str
    whys: list[str]


def _plan(stack: StackRuns) -> _Plan | None:
    """Return the layers of a stack with each mixer called what it is, and why; None without a
    plan."""
    record = stack.first
    if not record.plan or not all(isinstance(layer.get("settings"), dict) for layer in record.plan):
        return None
    simplest = [_simplest(layer["settings"], longest(record)) for layer in record.plan]
    beside = [(layer.get("group"), layer.get("channel")) for layer in record.plan]
    layers = [(simple, *each) for (simple, _), each in zip(simplest, beside, strict=True)]
    whys = [why for _, found in simplest for why in found]
    return _Plan(to_text(layers, sort_keys=True), whys)


def _elsewhere(stack: StackRuns) -> str:
    """Return the choices that are not of the layers."""
    chosen = {key: value for key, value in stack.choices.items() if not key.startswith("stack.groups.")}
    return to_text(chosen, sort_keys=True)


def _same_numbers(one: StackRuns, other: StackRuns) -> bool:
    """Return whether everything that was measured of common seeds on data is the same.

    Whole numbers alone say nothing: two stacks may both be right everywhere.
    """
    found = [stack.by_seed(stack.first.headline or "nll") for stack in (one, other)]
    common = [seed for seed in found[0] if seed in found[1]]
    if any(found[0][seed].value != found[1][seed].value for seed in common):
        return False  # which spares most pairs the rest
    numbers = [{record.seed: _numbers(record) for record in stack.finished} for stack in (one, other)]
    pairs = [(numbers[0][seed], numbers[1][seed]) for seed in common]
    telling = any(value % 1 for mine, _ in pairs for value in mine.values())
    return telling and all(mine == its for mine, its in pairs)


def _numbers(record: RunRecord) -> dict[tuple[str, int | None], float]:
    """Return the losses and scores of the whole stack, by name and step."""
    return {
        (each.name, each.step): each.value
        for each in record.measurements
        if each.split in HELD_OUT and each.unit != "tokens/s" and each.grouping == "stack"
    }
