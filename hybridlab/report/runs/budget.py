"""What the training of runs was: its budget, and the steps, tokens, epochs and time it took."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hybridlab.records.record import RunRecord
from hybridlab.report.runs.format import count, duration
from hybridlab.report.runs.stack_runs import StackRuns

KINDS = ("steps", "seconds", "flops")


class Training(NamedTuple):
    """The training of one run; None is what its record does not tell."""

    kind: str  # of the budget: one of KINDS, "" if unknown
    amount: float | None
    steps: int | None
    tokens: int | None
    epochs: float | None  # over the corpus
    seconds: float | None
    device: str

    @property
    def budget(self) -> str:
        """The budget in words, e.g. `400 steps`."""
        if self.amount is None:
            return ""
        match self.kind:
            case "seconds":
                return duration(self.amount)
            case "flops":
                return f"{count(self.amount)} FLOPs"
        return f"{self.amount:,.0f} steps"


def training_of(record: RunRecord) -> Training:
    """Return the training of a run, of records of before schema 3 from their settings and data."""
    made = record.training
    if made:
        kind = next((name for name in KINDS if name in made.get("budget", {})), "")
        amount = made["budget"][kind] if kind else None
        facts = (made.get(name) for name in ("steps", "tokens", "epochs", "seconds"))
        return Training(kind, amount, *facts, device=str(made.get("device", "")))
    return _from_settings(record)


def _from_settings(record: RunRecord) -> Training:
    task, trainer = (record.config.get(key) or {} for key in ("task", "trainer"))
    steps = trainer.get("max_steps")
    per_step = task["length"] * task["batch"] if {"length", "batch"} <= task.keys() else None
    curve = [each.tokens for each in record.measurements if each.split == "train" and each.step == steps]
    tokens = max((each for each in curve if each), default=steps * per_step if steps and per_step else None)
    speed = next((each.value for each in record.measurements if each.measure == "tokens_per_second"), None)
    described = record.hardware.get("task", {})
    corpus = described.get("tokens", {}).get("training") if isinstance(described.get("tokens"), dict) else None
    threads = record.hardware.get("threads")
    device = str(record.hardware.get("gpu") or (f"CPU, {threads} threads" if threads else ""))
    return Training(
        kind="steps" if steps else "",
        amount=steps,
        steps=steps,
        tokens=tokens,
        epochs=tokens / corpus if tokens and corpus else None,
        seconds=tokens / speed if tokens and speed else record.seconds or None,
        device=device.replace("CPU, 1 threads", "CPU, 1 thread"),
    )


def trainings(stacks: Iterable[StackRuns]) -> list[Training]:
    """Return the training of each run that counts; of stacks without any, of all their runs."""
    return [training_of(record) for stack in stacks for record in (stack.finished or stack.all_records)]


def training_in_words(stacks: Sequence[StackRuns]) -> str:
    """Return the training of all runs in one sentence, with ranges where they differ.

    E.g. `Training: 400 steps; 1.64M tokens, 0.189 epochs, 70 to 95 s on CPU, 2 threads.`
    """
    found = trainings(stacks)
    budgets = list(dict.fromkeys(each.budget for each in found if each.budget))
    if not budgets:
        return ""
    facts = [
        "" if all(each.kind == "steps" for each in found) else _range([each.steps for each in found], "steps", count),
        _range([each.tokens for each in found], "tokens", count),
        _range([each.epochs for each in found], "epochs", lambda value: f"{value:.3g}"),
        _range([each.seconds for each in found], "", duration),
    ]
    devices = list(dict.fromkeys(each.device for each in found if each.device))
    made = ", ".join(fact for fact in facts if fact)
    where = f" on {' or '.join(devices)}" if devices else ""
    return f"Training: {_or(budgets)}{f'; {made}' if made else ''}{where}."


def training_cell(stack: StackRuns) -> str:
    """Return the training of one stack for a table whose stacks were not trained alike."""
    found = trainings([stack])
    budgets = _or(list(dict.fromkeys(each.budget for each in found if each.budget)))
    return f"{budgets}\n{_range([each.tokens for each in found], 'tokens', count)}"


def unlike(stacks: Sequence[StackRuns]) -> bool:
    """Return whether the stacks had unlike budgets."""
    return len({(each.kind, each.amount) for each in trainings(stacks)}) > 1


def kinds(stack: StackRuns) -> str:
    """Return the kind of a stack's budget."""
    return next((each.kind for each in trainings([stack]) if each.kind), "")


def _or(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)


def _range(values: Sequence[Any], unit: str, show: Any) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = show(min(known)), show(max(known))
    return f"{low if low == high else f'{low} to {high}'} {unit}".strip()
