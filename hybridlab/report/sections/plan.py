"""The expanded plan, a row per layer."""

from typing import Any

from hybridlab.report.content import Section, Table
from hybridlab.report.runs.format import NOT_MEASURED, count, flat
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.sections.grids import section_of

ORDER = 140


def section(stack: StackRuns) -> list[Section]:
    """Return each layer's group, mixer, settings, channel mixer and costs."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for layer in stack.first.plan:
        named = flat(layer.get("settings", {}))
        settings = ", ".join(f"{key}={value}" for key, value in named.items() if not key.endswith("_target_"))
        costs = (count(layer.get(name)) for name in ("parameters", "flops", "state_bytes"))
        row = (str(layer["layer"]), layer["group"], layer["mixer"], settings, _channel(layer.get("channel")), *costs)
        rows.setdefault(layer["group"], []).append(row)
    table = Table(
        caption="The expanded plan, nearest to the embedding first.",
        text=("Layer", "Group", "Mixer", "Settings", "Channel mixer"),
        numbers=("Parameters", "FLOPs", "State bytes"),
        bodies=tuple(map(tuple, rows.values())),
        note=f"Derived, set by `stack.match` and not declared: {derived}." if (derived := _derived(stack)) else "",
    )
    return section_of("Plan", table, detail=True)


def _derived(stack: StackRuns) -> str:
    """Return the sizes that matching set, e.g. `channel.expansion=2.6687`."""
    named = flat(stack.derived)
    return ", ".join(f"{key.removeprefix('stack.').removeprefix('groups.')}={value}" for key, value in named.items())


def _channel(channel: Any) -> str:
    if isinstance(channel, dict):
        channel = channel.get("_target_", "")
    return str(channel).rpartition(".")[2] if channel else NOT_MEASURED
