"""How far back a layer group needs to look."""

from collections.abc import Iterator, Sequence

from hybridlab.evaluation.measures.base import TargetMeasure
from hybridlab.evaluation.passes.intervals import Interval
from hybridlab.evaluation.passes.interventions import LimitedReach
from hybridlab.evaluation.passes.requests import Request, difference, layer_groups, parallel_parts
from hybridlab.evaluation.passes.sums import TargetSums
from hybridlab.records.measurement import Measurement
from hybridlab.stack.plan import Plan

SMALLEST_BLOCK = 16
MEASURABLE = 1e-4  # nats/token: less than this is rounding, or nothing that anyone would pay for


class Reach(TargetMeasure):
    """The rise of the NLL when the mixers of a group see a limited number of tokens back, by that
    number.
    """

    name = "reach"
    unit = "nats/token"
    definition = (
        "NLL when every mixer of the group sees at least the last B tokens and fewer than 2 B, for a "
        "block of B tokens, minus the intact NLL"
    )
    title = "Reach\n(nats/token)"

    def requests(self, plan: Plan, groupings: Sequence[str], length: int) -> Iterator[Request]:
        """Ask for each group and block."""
        for group in [*layer_groups(plan, groupings), *parallel_parts(plan)]:
            for block in blocks(length):
                changed = LimitedReach(group.layers, "mixer", group.only, block)
                yield difference(group, changed, block=block, sliced=group.grouping == "group")


class ReachTokens(Reach):
    """The smallest block from which on no block costs anything measurable.

    A block costs something if the 95 % interval of its loss lies above 10^-4 nats/token (of a
    single document: if the loss does). Where even the largest block does, the reach is twice that:
    the first that cuts nothing off.
    """

    name = "reach_tokens"
    unit = "tokens"
    definition = "the smallest block from which on no block costs anything measurable"
    title = "Reach\n(tokens)"

    def summarise(self, requests: Sequence[Request], sums: Sequence[TargetSums], split: str) -> Iterator[Measurement]:
        """Yield one number for each group."""
        by_group: dict[tuple[str, str], list[Measurement]] = {}
        for request, found in zip(requests, sums, strict=True):
            for loss in self.answer(request._replace(sliced=False), found, split):
                by_group.setdefault((loss.grouping, loss.group), []).append(loss)
        for losses in by_group.values():
            falling = sorted(losses, key=lambda loss: -(loss.block or 0))
            costly = next((loss.block for loss in falling if _costs(loss)), None)
            smallest = falling[-1]
            tokens = smallest.block if costly is None else 2 * costly
            assert tokens is not None
            yield self.measured(
                Interval(tokens, None, None, smallest.n or 0),
                split=split,
                grouping=smallest.grouping,
                group=smallest.group,
                part=smallest.part,
                tokens=smallest.tokens,
            )


def blocks(length: int) -> list[int]:
    """Return the powers of two from the smallest block on of which more than two fit into a
    sequence: others cut nothing.
    """
    found = [SMALLEST_BLOCK]
    while 2 * found[-1] < length:
        found.append(2 * found[-1])
    return found[:-1]


def _costs(loss: Measurement) -> bool:
    """Return whether a loss is measurable."""
    return (loss.value if loss.low is None else loss.low) > MEASURABLE
