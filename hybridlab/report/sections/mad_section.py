"""The MAD scores of the stacks whose runs hold all six tasks."""

from collections.abc import Sequence
from typing import Any

from hybridlab.records.json_values import to_text
from hybridlab.records.record import RunRecord
from hybridlab.report.content import Section, Table
from hybridlab.report.runs.choices import label, telling
from hybridlab.report.runs.mad_score import TASKS, mad_score
from hybridlab.report.runs.stack_runs import StackRuns

NOTE = (
    "Score: the mean of the six, each over its settings, of the optimiser setting with the lowest validation NLL, averaged over "
    "seeds."
)


def mad_section(records: Sequence[RunRecord]) -> list[Section]:
    """Return a row for each stack with a score, the best first; nothing where no stack has all six."""
    by_stack: dict[str, list[RunRecord]] = {}
    for record in records:
        by_stack.setdefault(to_text(_stack(record), sort_keys=True), []).append(record)
    stacks = [StackRuns(_stack(runs[0]), tuple(runs)) for runs in by_stack.values()]
    found = [(stack, mad_score(stack.records)) for stack in stacks]
    scores = [(stack, each.by_task, each.score) for stack, each in found if each.score is not None]
    keys = telling([stack for stack, *_ in scores])
    ranked = sorted(scores, key=lambda each: each[2], reverse=True)
    rows = tuple(
        (label(stack, keys), _num_runs(stack), *(f"{by_task[task]:.3f}" for task in TASKS), f"{score:.3f}")
        for stack, by_task, score in ranked
    )
    if not rows:
        return []
    titles = tuple(task.replace(" ", "\n") for task in TASKS)
    table = Table(
        caption="MAD: accuracy at six tasks on held-out rows, and the score.",
        text=("Stack", "Runs"),
        numbers=(*titles, "Score"),
        bodies=(rows,),
        note=NOTE,
    )
    return [Section(title="MAD score", tables=(table,))]


def _num_runs(stack: StackRuns) -> str:
    return str(sum(record.status == "finished" for record in stack.records))


def _stack(record: RunRecord) -> dict[str, Any]:
    """Return the choices that make the stack: those of the task and of the optimiser are what the score is over."""
    return {
        key: value
        for key, value in record.choices.items()
        if key.partition(".")[0] not in ("task", "optimizer", "seed")
    }
