"""Several stacks, a row each, the best first."""

from collections import Counter

from hybridlab.report.content import Picture, Section, Table
from hybridlab.report.runs.budget import training_cell, unlike
from hybridlab.report.runs.choices import distinguishing_keys, short_names, value
from hybridlab.report.runs.format import NOT_MEASURED, count, over, setting, with_interval
from hybridlab.report.runs.headline import Headline, headline_of, quality, ranked
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.titles import measures_of, title
from hybridlab.report.sections.ngrams import ngrams

ORDER = 11
PICTURE = Picture("stacks", "The stacks, best first, with 95 % intervals.")


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the table of all stacks with its figure."""
    table = stacks_table(ranked(stacks), distinguishing_keys(stacks), base, headline_of(stacks))
    return [Section(title="Stacks", tables=(table,), pictures=(PICTURE,))]


def stacks_table(stacks: list[StackRuns], keys: list[str], base: StackRuns, headline: Headline) -> Table:
    """Return a row for each stack, even if all its runs failed."""
    shown, measures = quality(headline, stacks), measures_of(stacks)
    tuned = list(dict.fromkeys(key for stack in stacks for key in stack.tuning.values))
    by_budget = unlike(stacks)
    rows = []
    for stack in stacks:
        size, speed = stack.find("parameters"), stack.find("tokens_per_second")
        rows.append(
            (
                *_names(stack, keys, base),
                _statuses(stack),
                *(setting(stack.tuning.values.get(key, NOT_MEASURED)) for key in tuned),
                *([training_cell(stack)] if by_budget else []),
                *(with_interval(stack.find(measure)) for measure in shown),
                over(stack.find(headline.ranked)),
                count(size.value if size else None),
                count(speed.value if speed else None),
            )
        )
    trained = ("Training",) if by_budget else ()
    models = "; ".join(f"{model} {bits}" for model, bits in ngrams(base).items())
    return Table(
        caption=f"{len(stacks)} stacks, {headline.best} first. 95 % intervals: Student's t over seeds where there are "
        "several, else a bootstrap over documents.",
        text=(*short_names(keys).values(), "Runs", *short_names(tuned).values()),
        numbers=(*trained, *(title(measures, measure) for measure in shown), "Interval\nover", "Params", "Tokens/s"),
        bodies=(tuple(rows),),
        note=f"Smoothed n-gram models on the same text, bits per byte: {models}." if models else "",
    )


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
