"""Quality and cost of each layer group and each kind of mixer: the report's main table."""

from hybridlab.report.content import Picture, Section, Table
from hybridlab.report.runs.format import NOT_MEASURED, count, how, significant, with_interval
from hybridlab.report.runs.layers import layer_range, mixers
from hybridlab.report.runs.stack_runs import StackRuns

ORDER = 10
COSTS = ("parameters", "flops", "state_bytes")
SHOWN = (*COSTS, "milliseconds", "lens", "knockout")  # the measures of the table
PICTURE = Picture("knockout", "Zero ablation by layer group, with 95 % intervals.")
HEADINGS = (
    "Params",
    "FLOPs",
    "State\nbytes",
    "Logit lens\nNLL",
    "Zero ablation\nof mixers",
    "Zero ablation\nof channel\nmixers",
    "ms",
)
NOTE = (
    "Zero and mean ablation are knockouts. Zero ablation: how much the NLL rises when these layers' mixers, or channel "
    "mixers, add nothing. Logit lens: NLL read off the residual stream after the group. Both in nats/token."
)


def section(stack: StackRuns) -> list[Section]:
    """Return the table with its figure."""
    if not stack.finished:
        return []
    return [Section(title="Quality by layer group", tables=(quality_table(stack),), pictures=(PICTURE,))]


def quality_table(stack: StackRuns) -> Table:
    """Return a row per layer group, then per kind of mixer, then per part of parallel layers."""
    bodies: dict[str, list[tuple[str, ...]]] = {"group": [], "mixer": []}
    for (grouping, group), layers in stack.groupings.items():
        where = {"grouping": grouping, "group": group}
        costs = [stack.find(name, **where) for name in COSTS]
        time = stack.find("milliseconds", **where)
        row = (
            group,
            layer_range([layer["layer"] for layer in layers]),
            mixers(layers) if grouping == "group" else f"{len(layers)} layer{'s' * (len(layers) > 1)}",
            *(count(cost.value if cost else None) for cost in costs),
            with_interval(stack.find("lens", **where)),
            *(with_interval(stack.find("knockout", **where, part=part), signed=True) for part in ("mixer", "channel")),
            significant(time.value if time else None, 3),
        )
        bodies[grouping].append(row)
    parts = [(part, *_ablated(stack, part)) for part in stack.parts]
    return Table(
        caption=f"Quality by layer group, then by kind of mixer. {how(stack.find('nll'))}",
        text=("Layer\ngroup", "Layers", "Mixers"),
        numbers=HEADINGS,
        bodies=tuple(tuple(body) for body in (*bodies.values(), parts) if body),
        note=f"{NOTE}{_sequence_length(stack)}",
    )


def _ablated(stack: StackRuns, part: str) -> tuple[str, ...]:
    """Return the cells of a part of parallel layers, which has no costs and lens of its own."""
    effect = with_interval(stack.find("knockout", grouping="part", group=part, part="mixer"), signed=True)
    return "", "part", *[NOT_MEASURED] * 4, effect, NOT_MEASURED, NOT_MEASURED


def _sequence_length(stack: StackRuns) -> str:
    cost = stack.find("flops")
    return f" FLOPs, state and ms are for one sequence of {cost.tokens:,} tokens." if cost and cost.tokens else ""
