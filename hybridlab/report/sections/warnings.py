"""Warnings for who compares stacks: unequal sizes, unequal runs, few seeds."""

from collections.abc import Iterable, Sequence
from typing import Any

from hybridlab.report.runs.budget import trainings, unlike
from hybridlab.report.runs.choices import distinguishing_keys, label, short_names
from hybridlab.report.runs.degenerate import degenerate, identical
from hybridlab.report.runs.format import count, flat, percent
from hybridlab.report.runs.stack_runs import StackRuns

SIZE = 1.05  # largest ratio of parameters without a warning


def warnings(stacks: Sequence[StackRuns]) -> tuple[str, ...]:
    """Return a sentence for each reason to be careful."""
    return (
        *_identical(stacks),
        *_sizes(stacks),
        *_budgets(stacks),
        *_tuning(stacks),
        *_unlike(stacks),
        *_seeds(stacks),
        *_repeats(stacks),
    )


def _identical(stacks: Sequence[StackRuns]) -> Iterable[str]:
    """Name the stacks that are the same, and the mixers that their settings make others."""
    keys = distinguishing_keys(stacks)
    said = ""
    for before, stack, why in identical(stacks):
        said += why
        yield f"Identical: {label(before, keys)} and {label(stack, keys)} are the same stack ({why})."
    whys = dict.fromkeys(why for stack in stacks for why in degenerate(stack.first) if why not in said)
    for why in whys:
        if "`chunk`" not in why:
            yield f"{why[0].upper()}{why[1:]}."


def _sizes(stacks: Sequence[StackRuns]) -> Iterable[str]:
    sizes = [(found.value, stack) for stack in stacks if (found := stack.find("parameters"))]
    if len(sizes) < 2:
        return
    (least, small), (most, large) = (choose(sizes, key=lambda size: size[0]) for choose in (min, max))
    if least and most / least > SIZE:
        keys = distinguishing_keys(stacks)
        more = percent(most / least).removeprefix("+")
        yield (
            f"The stacks differ in size: {label(large, keys)} has {count(most)} parameters, {more} more than "
            f"{label(small, keys)} with {count(least)}. Part of a difference in quality may be a difference in size."
        )


def _budgets(stacks: Sequence[StackRuns]) -> Iterable[str]:
    """Name the budgets if they differ: then a table shows how stacks learn, not only what they
    can."""
    if not unlike(stacks):
        return
    keys = distinguishing_keys(stacks)
    named: dict[str, list[str]] = {}
    for stack in stacks:
        for budget in dict.fromkeys(each.budget for each in trainings([stack]) if each.budget):
            named.setdefault(budget, []).append(label(stack, keys))
    each = "; ".join(f"{budget} ({', '.join(names)})" for budget, names in named.items())
    yield f"The stacks were not trained equally long: {each}. Part of a difference may be one of training."


def _tuning(stacks: Sequence[StackRuns]) -> Iterable[str]:
    keys = distinguishing_keys(stacks)
    edges = [
        f"{label(stack, keys)} ({', '.join(f'{short_names([key])[key]} {value}' for key, value in edge.items())})"
        for stack in stacks
        if stack.finished and (edge := stack.tuning.at_the_edge)
    ]
    if edges:
        yield f"The chosen value is the smallest or largest tried, and a better one may lie beyond: {'; '.join(edges)}."
    single = [label(stack, keys) for stack in stacks if len(stack.tuning.trials) < 2]
    if len(single) < len(stacks) and single:
        yield (
            f"Not every stack was tuned: only one setting was tried of {'; '.join(single)}. "
            "The comparison is unfair to it."
        )


def _unlike(stacks: Sequence[StackRuns]) -> Iterable[str]:
    """Name what differs among finished runs besides choices; data and evaluation within a task."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for record in (record for stack in stacks for record in stack.finished):
        made: dict[str, Any] = {
            "commit": record.commit or "unknown",
            "versions": record.versions,
            "hardware": record.hardware,
            "evaluation": record.evaluation,
        }
        for key, fact in flat(made).items():
            task = str(record.config.get("task")) if key.startswith(("hardware.task.", "evaluation.")) else ""
            found.setdefault((key, task), {})[fact] = None
    unlike = [f"{key} ({' or '.join(facts)})" for (key, _), facts in found.items() if len(facts) > 1]
    if unlike:
        yield f"The runs were not made under equal conditions: they differ in {', '.join(unlike)}."


def _seeds(stacks: Sequence[StackRuns]) -> Iterable[str]:
    finished = [stack for stack in stacks if stack.finished]
    single = sum(len(stack.finished) == 1 for stack in finished)
    if len(stacks) > 1 and single:
        which = "Every stack has" if single == len(finished) else f"{single} of {len(finished)} stacks have"
        yield (f"{which} one seed: such an interval covers the variation of documents, not that of seeds.")


def _repeats(stacks: Sequence[StackRuns]) -> Iterable[str]:
    repeats = sum(
        sum(record.status == "finished" for record in stack.records) - len(stack.finished) for stack in stacks
    )
    if repeats:
        yield (
            f"Finished runs that repeat a seed of the same stack: {repeats}. "
            "Of each seed, only the run made first counts."
        )
