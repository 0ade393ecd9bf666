"""What swapping the mixer of one layer group changes."""

from hybridlab.report.content import Section, Table
from hybridlab.report.runs.choices import distinguishing_keys, label
from hybridlab.report.runs.headline import compared_in_words, headline_of
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.swaps import IDENTICAL, correction, swap_row, swaps
from hybridlab.report.runs.titles import measures_of
from hybridlab.report.sections.grids import section_of

ORDER = 13


def comparison(stacks: list[StackRuns], base: StackRuns) -> list[Section]:
    """Return a row for each stack that differs from the base in only one layer group."""
    headline = headline_of(stacks)
    found = swaps(base, stacks, headline)
    groups = dict.fromkeys(swap.group for swap in found)
    comparisons = [swap for swap in found if not swap.verdict.startswith(IDENTICAL)]
    compared = compared_in_words(headline, measures_of(stacks))
    table = Table(
        caption="The mixer of one layer group swapped, everything else as in the base "
        f"({label(base, distinguishing_keys(stacks))}): {compared} after minus before, paired by seed, mean with "
        "Student's 95 % interval.",
        text=("Layer group", "From", "To", "Effect"),
        numbers=(f"Difference\n({headline.unit})", "p (Holm) and\nits interval", "Seeds", "Params"),
        bodies=tuple(tuple(swap_row(swap) for swap in found if swap.group == group) for group in groups),
        note=correction(sum(swap.p is not None for swap in found)) if comparisons else "",
    )
    return section_of("Swaps", table if found else None)
