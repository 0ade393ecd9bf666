"""What a measure asks of the shared pass over the targets."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hybridlab.evaluation.passes.interventions import INTACT, Intervention
from hybridlab.evaluation.passes.readings import NLL, Reading
from hybridlab.stack.interventions import Part
from hybridlab.stack.plan import Plan


class LayerGroup(NamedTuple):
    """Some layers that a measurement is about; `only` names one part of their parallel mixers."""

    grouping: str  # group | mixer | layer | part
    group: str
    layers: tuple[int, ...]
    only: str | None = None


class Term(NamedTuple):
    """One sum over targets, with its sign."""

    sign: int
    intervention: Intervention = INTACT
    reading: Reading = NLL


class Request(NamedTuple):
    """A number asked for: a signed sum of terms over the scored targets, and what it is about.

    It is taken whole and, if it is `sliced`, in each bucket of the slices.
    """

    terms: tuple[Term, ...] = (Term(1),)
    grouping: str = "stack"
    group: str = ""
    part: str = ""
    block: int | None = None
    sliced: bool = True

    @property
    def is_intact(self) -> bool:
        """Whether the intact stack alone is read."""
        return all(term.intervention == INTACT for term in self.terms)


def layer_groups(plan: Plan, groupings: Sequence[str]) -> Iterator[LayerGroup]:
    """Yield the declared layer groups, the layers of each kind of mixer, and each single layer, if
    `groupings` names them.
    """
    for (grouping, group), layers in plan.groupings().items():
        if grouping in groupings:
            yield LayerGroup(grouping, group, layers)
    if "layer" in groupings:
        for layer in plan.layers:
            yield LayerGroup("layer", str(layer.index), (layer.index,))


def parallel_parts(plan: Plan) -> Iterator[LayerGroup]:
    """Yield the layers of each part of parallel mixers."""
    for group, (layers, only) in plan.part_groupings().items():
        yield LayerGroup("part", group, layers, only)


def parts_of_layers(plan: Plan) -> tuple[Part, ...]:
    """Return what a layer has: a mixer and, unless the stack has none, a channel mixer."""
    return ("mixer",) if plan.channel is None else ("mixer", "channel")


def ablations(
    plan: Plan, groupings: Sequence[str], change: Callable[[tuple[int, ...], Part, str | None], Intervention]
) -> Iterator[Request]:
    """Yield the NLL of the changed stack minus that of the intact one, for the mixers and channel
    mixers of each group.

    `change` makes the intervention from layers, part and the name of a part of parallel mixers.
    """
    for group in layer_groups(plan, groupings):
        for part in parts_of_layers(plan):
            yield difference(group, change(group.layers, part, None), sliced=group.grouping != "layer")
    for group in parallel_parts(plan):
        yield difference(group, change(group.layers, "mixer", group.only))


def difference(group: LayerGroup, changed: Intervention, *, block: int | None = None, sliced: bool = True) -> Request:
    """Return the NLL of the changed stack minus that of the intact one."""
    terms = (Term(1, changed), Term(-1))
    return Request(terms, group.grouping, group.group, changed.part, block, sliced)
