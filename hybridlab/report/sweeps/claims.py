"""Claims: inequalities between measured numbers, decided with their uncertainty.

A claim is a conjunction of inequalities between two sides, which are paired by seed. It holds if
one-sided paired t tests show every inequality (the largest p-value decides: Berger's (1982)
intersection-union test). It does not hold if they show the opposite of one (the smallest p-value
decides, times the number of inequalities). Holm's correction covers all claims of a sweep. A
paper's figures are printed beside a claim and never decide it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.statistics import Estimate, holm, over_seeds, p_above
from hybridlab.report.sweeps.selection import Selection

LEVEL = 0.05  # family-wise, for all claims of a sweep
HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
Cell = tuple[str, str]  # a row and a column of the sweep's table


class Term(NamedTuple):
    """A measured number with its coefficient."""

    coefficient: float
    number: Selection
    cell: Cell | None = None  # of the sweep's table that shows it
    in_total: bool = False  # multiplied by its tokens


@dataclass(frozen=True)
class Form:
    """The left side of an inequality minus the right: a constant plus weighted measured numbers."""

    words: str
    constant: float
    terms: tuple[Term, ...]

    def by_seed(self, stacks: Sequence[StackRuns]) -> dict[int, float]:
        """Return the value for each seed that every number was measured with."""
        found = [term.number.by_seed(stacks) for term in self.terms]
        seeds = set.intersection(*map(set, found)) if found else set()
        return {
            seed: self.constant
            + sum(
                term.coefficient * each[seed].value * ((each[seed].tokens or 0) if term.in_total else 1)
                for term, each in zip(self.terms, found, strict=True)
            )
            for seed in sorted(seeds)
        }

    def published(self, figure: Callable[[Cell], float | None]) -> float | None:
        """Return the value in a paper's figures, or None if one of them is missing."""
        figures = [figure(term.cell) if term.cell and not term.in_total else None for term in self.terms]
        known = [number for number in figures if number is not None]
        if len(known) < len(figures):
            return None
        return self.constant + sum(term.coefficient * x for term, x in zip(self.terms, known, strict=True))


class Inequality(NamedTuple):
    """The inequality sign * form > bound."""

    form: Form
    sign: int
    bound: float


@dataclass(frozen=True)
class Claim:
    """A statement of a paper or a user about the table."""

    words: str
    inequalities: tuple[Inequality, ...]


class Decision(NamedTuple):
    """What the runs show about a claim."""

    claim: Claim
    weakest: Inequality  # the one that decides
    measured: Estimate | None  # its form, paired by seed
    p: float  # corrected; that of the opposite if the claim does not hold, else that of the claim
    word: str


def decide(claims: Sequence[Claim], stacks: Sequence[StackRuns]) -> list[Decision]:
    """Decide every claim, corrected for their number, untestable claims included."""
    tests = [_test(claim, stacks) for claim in claims]
    for_it, against = (holm([getattr(test, name) for test in tests]) for name in ("p_for", "p_against"))
    decisions = []
    for claim, test, p_for, p_against in zip(claims, tests, for_it, against, strict=True):
        word = HOLDS if p_for < LEVEL else FAILS if p_against < LEVEL else UNDECIDED
        values = list(test.weakest.form.by_seed(stacks).values())
        measured = over_seeds(values) if values else None
        decisions.append(Decision(claim, test.weakest, measured, p_against if word == FAILS else p_for, word))
    return decisions


class _Test(NamedTuple):
    p_for: float
    p_against: float
    weakest: Inequality


def _test(claim: Claim, stacks: Sequence[StackRuns]) -> _Test:
    shown: list[tuple[float, float, Inequality]] = []
    for inequality in claim.inequalities:
        values = [inequality.sign * value for value in inequality.form.by_seed(stacks).values()]
        opposite = [-value for value in values]
        shown.append((p_above(values, inequality.bound), p_above(opposite, -inequality.bound), inequality))
    weakest = max(shown, key=lambda test: (test[0], -test[1]))
    return _Test(weakest[0], min(1.0, len(shown) * min(test[1] for test in shown)), weakest[2])
