"""The report on several stacks: one row each, and what swapping the mixer of one layer group does."""

from collections import Counter

from hybridlab.report.content import Picture, Section, Table
from hybridlab.report.runs.choices import label, short_names, telling, value
from hybridlab.report.runs.format import NOT_MEASURED, count, over, setting, with_interval
from hybridlab.report.runs.headline import TITLES, Headline, columns, headline_of, rank
from hybridlab.report.runs.stack_runs import Place, StackRuns
from hybridlab.report.runs.swaps import correction, swap_row, swaps
from hybridlab.report.sections.facts import facts, runs_table
from hybridlab.report.sections.gap import gap_section
from hybridlab.report.sections.grids import Show, plain, signed
from hybridlab.report.sections.group_sections import MIXER, probes_section, reach_section
from hybridlab.report.sections.mad_section import mad_section
from hybridlab.report.sections.one_stack import ngrams, plan_section, quality_table
from hybridlab.report.sections.positions import position_tables
from hybridlab.report.sections.slice_sections import slice_sections
from hybridlab.report.sections.trials import tuning_section


def sections(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the parts of a comparison; each stack's own tables follow, folded."""
    keys = telling(stacks)
    headline = headline_of(stacks)
    ranked = sorted(stacks, key=lambda stack: rank(headline, stack))
    pictures = (Picture("stacks", "The stacks, best first, with 95 % intervals."),)
    curves = (
        Picture("nll_by_position", "NLL by position in the document, minus that of the base, paired by seed."),
        Picture("learning_curve", "Validation NLL while training, a line per seed."),
    )
    return [
        Section(title="Stacks", tables=(stacks_table(ranked, keys, base, headline),), pictures=pictures),
        *mad_section([record for stack in stacks for record in stack.all_records]),
        *_swap_section(stacks, keys, base, headline),
        *gap_section(ranked, base),
        Section(title="By layer group", tables=tuple(group_tables(ranked, keys))),
        *tuning_section(ranked, keys),
        *unfinished_section(stacks),
        Section(title="By position and while training", pictures=curves, detail=True),
        *(_details(stack, keys) for stack in ranked if stack.finished),
        Section(
            title="Runs", tables=tuple(runs_table(stack.all_records) for stack in ranked), detail=True, folded=True
        ),
        *facts(base)[1:],
    ]


def stacks_table(stacks: list[StackRuns], keys: list[str], base: StackRuns, headline: Headline) -> Table:
    """Return a row for each stack; one whose runs all failed is a row too."""
    shown = columns(headline, stacks)
    tuned = list(dict.fromkeys(key for stack in stacks for key in stack.tuning.values))
    rows = []
    for stack in stacks:
        size, speed = stack.find("parameters"), stack.find("tokens_per_second")
        rows.append(
            (
                *_names(stack, keys, base),
                _statuses(stack),
                *(setting(stack.tuning.values.get(key, NOT_MEASURED)) for key in tuned),
                *(with_interval(stack.find(measure)) for measure in shown),
                over(stack.find(shown[0])),
                count(size.value if size else None),
                count(speed.value if speed else None),
            )
        )
    models = "; ".join(f"{model} {bits}" for model, bits in ngrams(base).items())
    return Table(
        caption=f"{len(stacks)} stacks, {headline.best} first. 95 % intervals: Student's t over seeds where there are several, "
        "else a bootstrap over documents.",
        text=(*short_names(keys).values(), "Runs", *short_names(tuned).values()),
        numbers=(*(TITLES[measure] for measure in shown), "Interval\nover", "Params", "Tokens/s"),
        bodies=(tuple(rows),),
        note=f"Smoothed n-gram models on the same data, bits per byte: {models}." if models else "",
    )


def group_tables(stacks: list[StackRuns], keys: list[str]) -> list[Table]:
    """Return what each layer group contributes and how far back it needs to look, a row per stack: what was measured."""
    groups = list(dict.fromkeys(group for stack in stacks for group in stack.groups))
    asked: list[tuple[str, str, dict[str, Place], Show]] = [
        (
            "Knockout: how much the NLL (nats/token) rises when every mixer of the group adds nothing",
            "knockout",
            MIXER,
            signed,
        ),
        (
            "Reach: the smallest block of tokens that costs the group nothing measurable, mean over seeds",
            "reach_tokens",
            MIXER,
            plain,
        ),
        ("Effective memory of the group: mean lag by gradient (tokens)", "memory_tokens", {}, with_interval),
    ]
    tables = []
    for words, measure, part, show in asked:
        where: list[dict[str, Place]] = [{"grouping": "group", "group": group, **part} for group in groups]
        rows = [
            (*(value(stack, key) for key in keys), *(show(stack.find(measure, **place)) for place in where))
            for stack in stacks
            if any(stack.find(measure, **place) for place in where)
        ]
        if rows:
            names, intervals = tuple(short_names(keys).values()), "" if show is plain else ", with 95 % intervals"
            text = f"{words}{intervals}."
            tables.append(Table(caption=text, text=names, numbers=tuple(groups), bodies=(tuple(rows),)))
    return tables


def _swap_section(stacks: list[StackRuns], keys: list[str], base: StackRuns, headline: Headline) -> list[Section]:
    found = swaps(base, stacks, headline)
    if not found:
        return []
    groups = dict.fromkeys(swap.group for swap in found)
    compared = TITLES[headline.compared].partition("\n")[0]
    table = Table(
        caption=f"The mixer of one layer group swapped, everything else as in the base ({label(base, keys)}): "
        f"{compared} after minus before, paired by seed, mean with Student's 95 % interval.",
        text=("Layer group", "From", "To", "Effect"),
        numbers=(f"Difference\n({headline.unit})", "p\n(Holm)", "Seeds", "Params"),
        bodies=tuple(tuple(swap_row(swap) for swap in found if swap.group == group) for group in groups),
        note=correction(sum(swap.p is not None for swap in found)),
    )
    return [Section(title="Swaps", tables=(table,))]


def unfinished_section(stacks: list[StackRuns]) -> list[Section]:
    """Return the runs that failed, diverged or still run, with their reason, if there are any."""
    keys = telling(stacks)
    rows = [
        (label(stack, keys), str(record.seed), record.status, record.reason or NOT_MEASURED, record.run_id)
        for stack in stacks
        for record in stack.all_records
        if record.status != "finished"
    ]
    if not rows:
        return []
    columns = ("Stack", "Seed", "Status", "Reason", "Run")
    table = Table(caption="Runs that count for no mean.", text=columns, bodies=(tuple(rows),))
    return [Section(title="Not finished", tables=(table,))]


def _details(stack: StackRuns, keys: list[str]) -> Section:
    parts = [*probes_section(stack), *reach_section(stack), *slice_sections(stack), plan_section(stack)]
    tables = (quality_table(stack), *position_tables(stack), *(table for part in parts for table in part.tables))
    return Section(title=label(stack, keys), tables=tables, detail=True, folded=True)


def _names(stack: StackRuns, keys: list[str], base: StackRuns) -> tuple[str, ...]:
    names = [value(stack, key) for key in keys]
    if stack is base and names:
        names[0] += " (base)"
    return tuple(names)


def _statuses(stack: StackRuns) -> str:
    counted = Counter(record.status for record in stack.records)
    return ", ".join(
        f"{number} {status}" for status, number in sorted(counted.items(), key=lambda item: item[0] != "finished")
    )
