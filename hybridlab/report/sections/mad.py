"""The MAD scores of the stacks that ran all six tasks."""

from collections.abc import Sequence
from typing import Any

from hybridlab.records.json_values import to_text
from hybridlab.records.record import RunRecord
from hybridlab.report.content import Section, Table
from hybridlab.report.runs.choices import distinguishing_keys, label
from hybridlab.report.runs.mad_score import TASKS, mad_score
from hybridlab.report.runs.stack_runs import StackRuns

ORDER = 12
ACROSS = True  # shown once for all runs, whatever they were scored on
NOTE = (
    "Score: the mean over the six tasks of the mean over a task's settings, each with the optimiser setting of the "
    "lowest validation NLL, averaged over seeds."
)


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return a row for each stack with a score, the best first."""
    return mad_section([record for stack in stacks for record in stack.all_records])


def mad_section(records: Sequence[RunRecord]) -> list[Section]:
    """Return the section for the stacks of these records, which runs of different tasks share."""
    by_stack: dict[str, list[RunRecord]] = {}
    for record in records:
        by_stack.setdefault(to_text(_stack(record), sort_keys=True), []).append(record)
    stacks = [StackRuns(_stack(runs[0]), tuple(runs)) for runs in by_stack.values()]
    found = [(stack, mad_score(stack.records)) for stack in stacks]
    scores = [(stack, each.by_task, each.score) for stack, each in found if each.score is not None]
    keys = distinguishing_keys([stack for stack, *_ in scores])
    ranked = sorted(scores, key=lambda each: each[2], reverse=True)
    rows = tuple(
        (label(stack, keys), _num_runs(stack), *(f"{by_task[task]:.3f}" for task in TASKS), f"{score:.3f}")
        for stack, by_task, score in ranked
    )
    if not rows:
        return []
    titles = tuple(task.replace(" ", "\n") for task in TASKS)
    table = Table(
        caption="MAD: accuracy on the held-out sequences of six tasks, and the score.",
        text=("Stack", "Runs"),
        numbers=(*titles, "Score"),
        bodies=(rows,),
        note=NOTE,
    )
    return [Section(title="MAD score", tables=(table,))]


def _num_runs(stack: StackRuns) -> str:
    return str(sum(record.status == "finished" for record in stack.records))


def _stack(record: RunRecord) -> dict[str, Any]:
    """Return the choices of the stack itself: the score is over those of task and optimiser."""
    return {
        key: value
        for key, value in record.choices.items()
        if key.partition(".")[0] not in ("task", "optimizer", "seed")
    }
