"""What is asked of a trained stack about its layer groups, and how the stack has to be run to answer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from hybridlab.stack.interventions import Part
from hybridlab.stack.plan import Plan

READS = ("lens", "tuned_lens")  # these read the intact residual stream; the others run a changed stack
CHANGES = ("knockout", "mean_knockout", "interaction", "reach")
CALIBRATED = ("tuned_lens", "mean_knockout")  # these take something from the training split
MEASURES = (*READS, *CHANGES)
GROUPINGS = ("group", "mixer", "layer")
SMALLEST_BLOCK = 16


class Run(NamedTuple):
    """One way to run a stack and to read it. Equal ones are run once, however many probes ask for them."""

    kind: str = "intact"  # intact | lens | tuned_lens | knockout | mean_knockout | reach
    layers: tuple[int, ...] = ()  # that are changed; for a lens, the one that is read after
    part: Part = "mixer"
    only: str | None = None  # a part of parallel mixers
    block: int | None = None


INTACT = Run()


class Probe(NamedTuple):
    """A measure of a layer group, and the sum of NLLs that it is."""

    measure: str
    grouping: str
    group: str
    part: str
    block: int | None
    terms: tuple[tuple[int, Run], ...]  # +1 or -1, and of what


def probes(plan: Plan, measures: Sequence[str], by: Sequence[str], length: int) -> list[Probe]:
    """Return what is asked about a stack whose longest row is of `length`; `by` names groupings of its layers."""
    groupings = {key: layers for key, layers in _groupings(plan).items() if key[0] in by}
    return [probe for measure in measures for probe in _probes(plan, measure, groupings, length)]


def blocks(length: int) -> list[int]:
    """Return the powers of two, from the smallest block, of which more than two fit into a row: the others cut nothing."""
    found = [SMALLEST_BLOCK]
    while 2 * found[-1] < length:
        found.append(2 * found[-1])
    return found[:-1]


def _probes(
    plan: Plan, measure: str, groupings: Mapping[tuple[str, str], tuple[int, ...]], length: int
) -> Iterator[Probe]:
    if measure in READS:
        for (grouping, group), layers in groupings.items():
            if grouping != "mixer":
                yield Probe(measure, grouping, group, "", None, ((1, Run(measure, layers[-1:])),))
        return
    if measure == "interaction":
        yield from _interactions(plan)
        return
    how: list[tuple[Part, int | None]] = [(part, None) for part in _parts(plan)]
    if measure == "reach":
        how = [("mixer", block) for block in blocks(length)]
    for (grouping, group), layers in groupings.items():
        for part, block in how:
            yield _added(measure, grouping, group, Run(measure, layers, part, block=block))
    for group, (layers, only) in plan.part_groupings().items():
        for part, block in how:
            if part == "mixer":
                yield _added(measure, "part", group, Run(measure, layers, only=only, block=block))


def _added(measure: str, grouping: str, group: str, run: Run) -> Probe:
    return Probe(measure, grouping, group, run.part, run.block, ((1, run), (-1, INTACT)))


def _interactions(plan: Plan) -> Iterator[Probe]:
    declared = {group: layers for (grouping, group), layers in plan.groupings().items() if grouping == "group"}
    for (one, its), (other, others) in combinations(declared.items(), 2):
        for part in _parts(plan):
            both, *alone = (Run("knockout", layers, part) for layers in (its + others, its, others))
            terms = ((1, both), *((-1, run) for run in alone), (1, INTACT))
            yield Probe("interaction", "pair", f"{one} & {other}", part, None, terms)


def _parts(plan: Plan) -> tuple[Part, ...]:
    return ("mixer",) if plan.channel is None else ("mixer", "channel")


def _groupings(plan: Plan) -> dict[tuple[str, str], tuple[int, ...]]:
    return plan.groupings() | {("layer", str(layer.index)): (layer.index,) for layer in plan.layers}


def runs(probes: Iterable[Probe]) -> list[Run]:
    """Return what has to be run, each once, beside the intact stack."""
    found = dict.fromkeys(run for probe in probes for _, run in probe.terms)
    found.pop(INTACT, None)
    return list(found)
