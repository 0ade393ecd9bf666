"""The settings that were tried for each stack before its row was chosen."""

from collections import Counter

from hybridlab.report.content import Section, Table
from hybridlab.report.runs.choices import distinguishing_keys, label, short_names
from hybridlab.report.runs.format import NOT_MEASURED, setting, with_interval
from hybridlab.report.runs.headline import ranked
from hybridlab.report.runs.stack_runs import StackRuns

ORDER = 120


def section(stack: StackRuns) -> list[Section]:
    """Return the settings tried for the only stack."""
    return tuning_section([stack], [])


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the settings tried for each stack."""
    return tuning_section(ranked(stacks), distinguishing_keys(stacks))


def tuning_section(stacks: list[StackRuns], keys: list[str]) -> list[Section]:
    """Return the validation NLL of every setting that was tried, stack by stack."""
    tuned = list(dict.fromkeys(key for stack in stacks for key in stack.tuning.values))
    if not tuned:
        return []
    names = list(short_names(tuned).values())
    bodies = tuple(
        tuple(
            (
                label(stack, keys),
                *(setting(trial.values.get(key, NOT_MEASURED)) for key in tuned),
                "chosen" if index == 0 else "",
                ", ".join(f"{number} {status}" for status, number in Counter(r.status for r in trial.records).items()),
                with_interval(trial.validation),
            )
            for index, trial in enumerate(stack.tuning.trials)
        )
        for stack in stacks
    )
    table = Table(
        caption=f"{' and '.join(names)} searched per stack, chosen on validation, reported on test.",
        text=("Stack", *names, "", "Runs"),
        numbers=("Validation NLL\n(nats/token)",),
        bodies=bodies,
        note="Chosen: the lowest mean over seeds, among the settings under which most seeds finished.",
    )
    return [Section(title="Tuning", tables=(table,), detail=True)]
