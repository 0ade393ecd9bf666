"""What is done to a trained stack to see what its layer groups do."""

from collections.abc import Iterator
from typing import NamedTuple

from hybridlab.evaluation.readout import Readout, readout
from hybridlab.stack.interventions import Part, silenced
from hybridlab.stack.model import Stack
from hybridlab.stack.packing import Packing
from hybridlab.tasks.batch import Batch


class Probe(NamedTuple):
    """What was done to the stack when a target was scored."""

    measure: str  # nll | lens | knockout
    grouping: str  # stack | group | mixer | part
    group: str
    part: str  # "" | mixer | channel


INTACT = Probe("nll", "stack", "", "")


def probed(stack: Stack, batch: Batch, by_group: bool) -> Iterator[tuple[Probe, Readout]]:
    """Yield the scored targets of a batch by the intact stack, then under every probe.

    A knockout starts from the intact residual stream in front of the first layer it touches: nothing before that changed.
    """
    packing = None if batch.documents is None else Packing.of(batch.documents)
    residuals = [stack.embedding(batch.inputs)]  # residuals[i] stands in front of layer i
    for layer in stack.layers:
        residuals.append(layer(residuals[-1], packing))

    def without(layers: tuple[int, ...], part: Part, only: str | None = None) -> Readout:
        with silenced(stack, layers, part, only):
            return readout(stack, stack.run(residuals[layers[0]], layers[0], packing), batch)

    yield INTACT, readout(stack, residuals[-1], batch)
    if not by_group:
        return
    silent: dict[tuple[tuple[int, ...], Part], Readout] = {}  # a group and a kind of mixer may be the same layers
    for (grouping, group), layers in stack.plan.groupings().items():
        if grouping == "group":
            yield Probe("lens", grouping, group, ""), readout(stack, residuals[layers[-1] + 1], batch)
        parts: tuple[Part, ...] = ("mixer", "channel") if stack.plan.channel is not None else ("mixer",)
        for part in parts:
            if (layers, part) not in silent:
                silent[layers, part] = without(layers, part)
            yield Probe("knockout", grouping, group, part), silent[layers, part]
    for name, (layers, only) in stack.plan.part_groupings().items():
        yield Probe("knockout", "part", name, "mixer"), without(layers, "mixer", only)
