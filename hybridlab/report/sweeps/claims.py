"""Claims: inequalities between measured numbers, decided with their uncertainty.

A claim is a conjunction of inequalities between two sides, which are paired by seed. Paired t tests
over the seeds show it if they show every inequality (the largest p-value decides: Berger's (1982)
intersection-union test), and show its opposite if they show that of one (the smallest p-value
decides, times the number of inequalities). Holm's correction covers both tests of all claims of a
sweep. A claim whose preconditions are not met is not testable. A paper's figures are printed beside
a claim and never decide it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from hybridlab.report.runs.comparable import comparable
from hybridlab.report.runs.decisions import Corrected, corrected
from hybridlab.report.runs.degenerate import same_stack
from hybridlab.report.runs.floors import floors
from hybridlab.report.runs.format import NOT_MEASURED, plain, with_interval
from hybridlab.report.runs.stack_runs import StackRuns
from hybridlab.report.runs.statistics import (
    ROUNDING,
    Estimate,
    interval_at,
    over_seeds,
    p_differs,
    p_each_way,
    seeds_needed,
    spread,
)
from hybridlab.report.sweeps.requirements import ACCURACIES, Compared, Requirement, Unmet
from hybridlab.report.sweeps.selection import Selection

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
NOT_TESTABLE, IDENTICAL = "not testable here", "identical"
Cell = tuple[str, str]  # a row and a column of the sweep's table


class Term(NamedTuple):
    """A measured number with its coefficient."""

    coefficient: float
    number: Selection
    cell: Cell | None = None  # of the sweep's table that shows it
    in_total: bool = False  # multiplied by its tokens
    row: str = ""  # of the table, whose stack it is


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
    requires: tuple[Requirement, ...] = ()
    across_tasks: bool = False  # whether it is about numbers of different tasks, as of two lengths

    @property
    def compared(self) -> list[Compared]:
        """The rows that it compares, with the number of each, once."""
        terms = [term for inequality in self.inequalities for term in inequality.form.terms]
        rows = (Compared(term.row, term.cell[1] if term.cell else "", term.number) for term in terms)
        found: dict[tuple[str, str], Compared] = {}
        for row in rows:
            found.setdefault((row.row, row.column), row)
        return list(found.values())


class Verdict(NamedTuple):
    """What differences over seeds show about one claim among those of its table."""

    word: str
    weakest: int  # index of the inequality that decides
    test: Corrected  # two-sided, corrected for all claims


class Decision(NamedTuple):
    """What the runs show about a claim."""

    claim: Claim
    weakest: Inequality  # the one that decides
    measured: Estimate | None  # its form, paired by seed, with the 95 % interval of this form alone
    p_alone: float  # two-sided, of this form against its bound, not corrected: it agrees with that interval
    together: Estimate | None  # with the interval that the verdict uses
    p: float  # two-sided, of the claim, corrected for all claims: it agrees with that interval
    word: str
    seeds: int | None = None  # how many would decide it with a power of 80 %; None: not known, or too many
    seconds: float = 0.0  # of training that the seeds beyond those at hand would take
    unmet: tuple[Unmet, ...] = ()  # preconditions
    same: str = ""  # why the stacks that it compares are the same
    guess: float | None = None  # what the form is for stacks that guess, where the tasks state that

    @property
    def why(self) -> str:
        """Why two stacks are the same, or the first precondition that is not met, with the number.

        Of a difference between stacks that are not shown to do better than a guess, the number is
        the difference, and what two guesses differ by.
        """
        if self.same:
            return self.same
        if not self.unmet:
            return ""
        first = self.unmet[0]
        if not first.is_floor or self.guess is None or self.measured is None or len(self.weakest.form.terms) < 2:
            return f"{first.row}: {first.short}"
        return f"recall {with_interval(self.measured).partition(chr(10))[0]}, a guess {plain(self.guess)}"


def decide(claims: Sequence[Claim], stacks: Sequence[StackRuns]) -> list[Decision]:
    """Decide every claim, corrected for their number, those that are not testable included."""
    values = [[list(each.form.by_seed(stacks).values()) for each in claim.inequalities] for claim in claims]
    unmet = [_unmet(claim, stacks) for claim in claims]
    verdicts = judge(
        [
            [_excess(each, found) for each, found in zip(claim.inequalities, by_inequality, strict=True)]
            for claim, by_inequality in zip(claims, values, strict=True)
        ],
        [not each for each in unmet],
    )
    return [
        _decision(claim, verdict, by_inequality[verdict.weakest], failed, stacks)
        for claim, verdict, by_inequality, failed in zip(claims, verdicts, values, unmet, strict=True)
    ]


def judge(claims: Sequence[Sequence[Sequence[float]]], testable: Sequence[bool] = ()) -> list[Verdict]:
    """Judge the claims of one table; of each, a list per inequality with its excess by seed.

    The excess is what the inequality claims to be above 0. Claims that are not testable count in
    the correction and are never decided.
    """
    tests = [_test(inequalities) for inequalities in claims]
    testable = testable or [True] * len(tests)
    each_way = [
        (test.p_for, test.p_against) if allowed else (1.0, 1.0) for test, allowed in zip(tests, testable, strict=True)
    ]
    verdicts = []
    for test, found, allowed in zip(tests, corrected(each_way), testable, strict=True):
        word = (HOLDS if test.p_for < test.p_against else FAILS) if found.shown else UNDECIDED
        verdicts.append(Verdict(word if allowed else NOT_TESTABLE, test.weakest, found))
    return verdicts


class _Test(NamedTuple):
    p_for: float
    p_against: float
    weakest: int


def _test(inequalities: Sequence[Sequence[float]]) -> _Test:
    each_way = [p_each_way(excess) for excess in inequalities]
    places = range(len(each_way))
    weakest = max(places, key=lambda place: (each_way[place][0], -each_way[place][1]))
    opposite = min(places, key=lambda place: each_way[place][1])
    p_for, p_against = each_way[weakest][0], min(1.0, len(each_way) * each_way[opposite][1])
    return _Test(p_for, p_against, opposite if p_against < p_for else weakest)


def _excess(inequality: Inequality, values: Sequence[float]) -> list[float]:
    """Return by how much each seed's value of the form exceeds the bound, in the claim's sense."""
    return [inequality.sign * value - inequality.bound for value in values]


def _unmet(claim: Claim, stacks: Sequence[StackRuns]) -> tuple[Unmet, ...]:
    other_text = [] if claim.across_tasks else _other_text(claim, stacks)
    failed = [each for requirement in claim.requires for each in requirement.failed(claim.compared, stacks)]
    return tuple({(each.requires, each.row, each.short): each for each in (*other_text, *failed)}.values())


def _other_text(claim: Claim, stacks: Sequence[StackRuns]) -> list[Unmet]:
    """Return that the rows of an inequality do not compare: they were scored on other text, or
    trained under budgets of other kinds.
    """
    found = []
    for inequality in claim.inequalities:
        terms = inequality.form.terms
        its = [stack for term in terms if (stack := term.number.stack(stacks))]
        tables = comparable([stack for index, stack in enumerate(its) if not any(stack is it for it in its[:index])])
        if len(tables) > 1:
            against = " against ".join(table.words for table in tables)
            rows = " and ".join(dict.fromkeys(term.row for term in terms))
            found.append(Unmet("equal text and like budgets", rows, against, NOT_MEASURED, against))
    return found


def _decision(
    claim: Claim, verdict: Verdict, values: list[float], unmet: tuple[Unmet, ...], stacks: Sequence[StackRuns]
) -> Decision:
    inequality = claim.inequalities[verdict.weakest]
    form = inequality.form
    same = _same(form, stacks) if verdict.word != NOT_TESTABLE else ""
    word = IDENTICAL if same else verdict.word
    bound = inequality.sign * inequality.bound
    seeds = _seeds(_excess(inequality, values), verdict, len(claim.inequalities))
    return Decision(
        claim=claim,
        weakest=inequality,
        measured=over_seeds(values) if values else None,
        p_alone=p_differs(values, bound),
        together=_together(inequality, values, verdict, len(claim.inequalities)) if values else None,
        p=verdict.test.p,
        word=word,
        seeds=seeds,
        seconds=max(0, seeds - len(values)) * _seconds_per_seed(form, stacks) if seeds else 0.0,
        unmet=unmet,
        same=same,
        guess=_guess(form, stacks),
    )


def _together(inequality: Inequality, values: list[float], verdict: Verdict, num_inequalities: int) -> Estimate:
    """Return the form with the interval that lies beyond the bound exactly if the claim is decided.

    Towards the claim, every inequality is tested at the claim's level; against it, at that level
    over the number of inequalities.
    """
    towards, against = verdict.test.tail, verdict.test.tail / num_inequalities
    below, above = (towards, against) if inequality.sign > 0 else (against, towards)
    return interval_at(values, below, above)


def _same(form: Form, stacks: Sequence[StackRuns]) -> str:
    """Return why a difference is one of a stack from itself, "" if it is not."""
    if len(form.terms) != 2 or form.terms[0].coefficient != -form.terms[1].coefficient:
        return ""
    numbers = [(term.number.measure, term.number.where, term.in_total) for term in form.terms]
    one, other = (term.number.stack(stacks) for term in form.terms)
    if numbers[0] != numbers[1] or one is None or other is None or not (one.finished and other.finished):
        return ""
    return "the same stack" if one is other else same_stack(one, other)


def _seeds(excess: Sequence[float], verdict: Verdict, num_inequalities: int) -> int | None:
    """Return the seeds that would decide an undecided claim, at the observed mean and spread."""
    if verdict.word != UNDECIDED or len(excess) < 2 or not all(map(math.isfinite, excess)):
        return None
    mean, found = fmean(excess), spread(excess)
    if found < ROUNDING:
        return None
    tail = verdict.test.tail if mean > 0 else verdict.test.tail / num_inequalities
    return seeds_needed(mean / found, tail)


def _guess(form: Form, stacks: Sequence[StackRuns]) -> float | None:
    """Return the form's value at the floors of its numbers, None if one is not known."""
    total = form.constant
    for term in form.terms:
        stack = term.number.stack(stacks)
        if stack is None or not stack.finished or term.in_total or term.number.where.get("slice"):
            return None
        floor = floors(stack.first).get(term.number.measure)
        if floor is None or term.number.measure not in ACCURACIES:
            return None
        total += term.coefficient * floor
    return total


def _seconds_per_seed(form: Form, stacks: Sequence[StackRuns]) -> float:
    """Return the time of one more seed of the stacks of a form, with the chosen settings."""
    found = {id(stack): stack for term in form.terms if (stack := term.number.stack(stacks))}
    return sum(fmean(record.seconds for record in stack.finished) for stack in found.values() if stack.finished)
