"""The share of a gap between stacks that recall explains: Zoology's Table 1 (arXiv:2312.04927)."""

from hybridlab.report.content import Section, Table
from hybridlab.report.runs.choices import distinguishing_keys, label, short_names, value
from hybridlab.report.runs.format import NOT_MEASURED, significant, with_interval
from hybridlab.report.runs.headline import ranked
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.statistics import Estimate, ratio_over_seeds

ORDER = 14
RECALL = {"slice": "recall", "bucket": "recall"}
OTHER = {"slice": "recall", "bucket": "other tokens"}


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return perplexities on recall and other tokens, and the share of each stack's gap."""
    return gap_section(ranked(stacks), base)


def gap_share(base: StackRuns, other: StackRuns) -> Estimate | None:
    """Return the share of the difference in summed NLL that lies on recall tokens.

    (difference of NLL on recall tokens x their number) / (difference of NLL x number of tokens).
    Differences are paired by seed. `None` if either was not measured, or if the seeds show no gap
    to explain.
    """
    explained, whole = (_summed_gap(base, other, where) for where in (RECALL, {}))
    seeds = [seed for seed in whole if seed in explained]
    return ratio_over_seeds([explained[s] for s in seeds], [whole[s] for s in seeds]) if seeds else None


def gap_section(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return the section with a row per stack, in the order given."""
    if not any(stack.find("nll", **RECALL) for stack in stacks):
        return []
    keys = distinguishing_keys(stacks)
    rows = [
        (
            *(value(stack, key) for key in keys),
            *(with_interval(stack.find("perplexity", **where)) for where in ({}, RECALL, OTHER)),
            NOT_MEASURED if stack is base else with_interval(_in_percent(gap_share(base, stack))),
        )
        for stack in stacks
        if stack.finished
    ]
    table = Table(
        caption=f"Recall tokens, {_frequency(base)}: perplexity on them and on the others, and the share of the gap to "
        f"the base ({label(base, keys)}) that they explain.",
        text=tuple(short_names(keys).values()),
        numbers=("Perplexity", "on recall", "on others", "% of the gap\nby recall"),
        bodies=(tuple(rows),),
        note="Share: difference of NLL on recall tokens times their number, over difference of NLL times number of "
        "tokens, paired by seed, with Fieller's 95 % interval; none is given if the seeds show no gap. "
        "Above 100 %: on the other tokens, the stack with the higher NLL is the better one.",
    )
    return [Section(title="Recall", tables=(table,))]


def _in_percent(share: Estimate | None) -> Estimate | None:
    if share is None:
        return None
    low, high = (None if end is None else 100 * end for end in (share.low, share.high))
    return Estimate(100 * share.value, low, high, share.interval, share.n)


def _summed_gap(base: StackRuns, other: StackRuns, where: dict[str, str]) -> dict[int, float]:
    """Return the difference in NLL summed over tokens, by seed."""
    before, after = (stack.by_seed("nll", **where) for stack in (base, other))
    return {
        seed: (after[seed].value - before[seed].value) * (found.tokens or 0)
        for seed, found in before.items()
        if seed in after
    }


def _frequency(stack: StackRuns) -> str:
    recall, whole = stack.find("nll", **RECALL), stack.find("nll")
    if recall is None or whole is None or not recall.tokens or not whole.tokens:
        return "which complete n-grams seen before in their document"
    return f"{significant(100 * recall.tokens / whole.tokens, 2)} % of all"
