"""The choices that distinguish stacks, short names for them, and the stack that a user names."""

from collections.abc import Sequence

from hybridlab.errors import ConfigError, near_miss
from hybridlab.records.json_values import to_text
from hybridlab.report.runs.format import setting
from hybridlab.report.runs.stack_runs import StackRuns

GROUPS = "stack.groups."


def distinguishing_keys(stacks: Sequence[StackRuns]) -> list[str]:
    """Return the fewest choices, in their order, by which the stacks differ.

    A choice that only some stacks have (the window of a sliding mixer) comes with another choice;
    one that repeats another (a window set by the sequence length) adds nothing. Either is named
    only if stacks would look equal without it, and so is a size that `stack.match` set.
    """
    keys = list(dict.fromkeys(key for stack in stacks for key in stack.choices))
    shown: list[str] = []
    for key in keys:
        values = [to_text(stack.choices[key]) for stack in stacks if key in stack.choices]
        repeats = any(_column(stacks, key) == _column(stacks, other) for other in shown)
        if len(set(values)) > 1 and (is_mixer(key) or not repeats):
            shown.append(key)
    for key in (*keys, *dict.fromkeys(key for stack in stacks for key in stack.derived)):
        seen, all_seen = (len({_row(stack, wanted) for stack in stacks}) for wanted in (shown, [*shown, key]))
        if all_seen > seen:
            shown.append(key)
    return shown


def is_mixer(key: str) -> bool:
    """Return whether a choice is the mixer of a layer group."""
    return key.startswith(GROUPS) and key.endswith(".mixer")


def group_of(key: str) -> str | None:
    """Return the layer group that a choice belongs to, if any."""
    return key.removeprefix(GROUPS).partition(".")[0] if key.startswith(GROUPS) else None


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return a heading per choice: the layer group for its mixer, else the last word if unique."""
    names = {}
    for key in keys:
        last = key.rpartition(".")[2]
        alone = sum(other.rpartition(".")[2] == last for other in keys) == 1
        group = group_of(key)
        names[key] = group if group and is_mixer(key) else f"{group} {last}" if group else last if alone else key
    return names if len(set(names.values())) == len(names) else {key: key for key in keys}


def label(stack: StackRuns, keys: Sequence[str]) -> str:
    """Name a stack: by its row's name if it has one, else by its values of these choices."""
    if stack.name:
        return stack.name
    names = short_names(keys)
    return ", ".join(f"{names[key]} = {value(stack, key)}" for key in keys) or stack.first.name


def differing(one: StackRuns, other: StackRuns) -> list[str]:
    """Return every choice in which two stacks differ."""
    return [key for key in {**one.choices, **other.choices} if _value(one, key) != _value(other, key)]


def value(stack: StackRuns, key: str) -> str:
    """Return a stack's value of a choice, as text."""
    found = stack.choices if key in stack.choices else stack.derived
    return setting(found[key]) if key in found else "–"


def choose_base(stacks: Sequence[StackRuns], base: str | None) -> StackRuns:
    """Return the first stack with finished runs that matches `base`, e.g. `early=full,lr=0.1`."""
    matching = list(stacks)
    for term in (base or "").split(",") if base is not None else ():
        name, equals, wanted = (word.strip() for word in term.partition("="))
        if not equals:
            raise ConfigError(f"`base={base}`: each term must be a choice and its value, e.g. early=full")
        keys = keys_called(name, stacks)
        if not keys:
            raise ConfigError(f"`base={base}`: {no_choice(name, stacks)}")
        values = {value(stack, key) for stack in stacks for key in keys if key in stack.choices}
        if wanted not in values:
            raise ConfigError(f"`base={base}`: no run has `{name}={wanted}`; {near_miss(wanted, values)}")
        matching = [stack for stack in matching if any(value(stack, key) == wanted for key in keys)]
    if not matching:
        raise ConfigError(f"`base={base}`: each term matches runs, but no run matches all of them")
    return next((stack for stack in matching if stack.finished), matching[0])


def keys_called(name: str, stacks: Sequence[StackRuns]) -> set[str]:
    """Return the choices that a name may mean: a key, its end, or a layer group for its mixer."""
    keys = {key for stack in stacks for key in stack.choices}
    return {key for key in keys if name in (key, _short(key)) or key.endswith(f".{name}")}


def no_choice(name: str, stacks: Sequence[StackRuns]) -> str:
    """Return the message that no choice of these stacks has this name, with the near miss."""
    allowed = {_short(key) for stack in stacks for key in distinguishing_keys(stacks) or stack.choices}
    return f"no choice is called `{name}`; {near_miss(name, allowed)}"


def _short(key: str) -> str:
    """Return the short name of a choice: `early` for the mixer of `early`, else the last word."""
    group = group_of(key)
    return group if group and is_mixer(key) else key.rpartition(".")[2]


def _column(stacks: Sequence[StackRuns], key: str) -> list[str]:
    return [_value(stack, key) for stack in stacks]


def _row(stack: StackRuns, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(_value(stack, key) for key in keys)


def _value(stack: StackRuns, key: str) -> str:
    found = stack.choices if key in stack.choices else stack.derived
    return to_text(found[key]) if key in found else ""
