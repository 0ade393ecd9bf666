"""The decisions of one table: one error budget of 5 % for all of them, in both directions.

Of each statement, either it or its opposite may be shown, by a one-sided test each. Holm's (1979)
method over the tests of both directions of all statements bounds the probability of any false
decision in the table, whatever the tests have in common: 5 % are spent once, not once on "holds"
and once more on "does not hold".
"""

from collections.abc import Sequence
from typing import NamedTuple

from hybridlab.report.runs.statistics import holm

LEVEL = 0.05  # for all decisions of a table together, in both directions


class Corrected(NamedTuple):
    """The test of one statement among those of its table."""

    p: float  # two-sided, corrected
    among: int  # the number k of one-sided tests among which Holm's method tests it, at 5 % / k

    @property
    def shown(self) -> bool:
        """Whether the table shows the statement or its opposite."""
        return self.p < LEVEL

    @property
    def tail(self) -> float:
        """The level of the one-sided test in either direction."""
        return LEVEL / self.among


def corrected(each_way: Sequence[tuple[float, float]]) -> list[Corrected]:
    """Return the corrected tests of statements, from the one-sided p-values for and against each.

    The smallest of the 2 m p-values is tested among all, the next among the others, and so on until
    one is not shown: it and all larger ones are tested among those that are left. A single test is
    the usual two-sided one.
    """
    least = [min(pair) for pair in each_way]
    both = holm([p for pair in each_way for p in pair])
    p_after = [min(both[2 * index : 2 * index + 2]) for index in range(len(least))]
    order = sorted(range(len(least)), key=least.__getitem__)
    shown = sum(p < LEVEL for p in p_after)
    found = [Corrected(1.0, 1)] * len(least)
    for rank, index in enumerate(order):
        found[index] = Corrected(p_after[index], 2 * len(least) - min(rank, shown))
    return found
