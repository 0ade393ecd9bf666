"""Whether two layer groups do each other's work."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from hybridlab.evaluation.measures.base import TargetMeasure
from hybridlab.evaluation.passes.interventions import ZeroAblation
from hybridlab.evaluation.passes.requests import Request, Term, layer_groups, parts_of_layers
from hybridlab.stack.plan import Plan


class Interaction(TargetMeasure):
    """The knockout of two declared groups at once, minus the sum of their own."""

    name = "interaction"
    unit = "nats/token"
    definition = (
        "knockout of two layer groups at once, minus the sum of their own: above 0 where one does the other's work"
    )
    source = "arXiv:2307.15771"
    title = "Interaction"

    def requests(self, plan: Plan, groupings: Sequence[str], length: int) -> Iterator[Request]:
        """Ask for each pair of declared groups."""
        for one, other in combinations(layer_groups(plan, ["group"]), 2):
            for part in parts_of_layers(plan):
                both, *alone = (
                    ZeroAblation(layers, part) for layers in (one.layers + other.layers, one.layers, other.layers)
                )
                terms = (Term(1, both), *(Term(-1, ablation) for ablation in alone), Term(1))
                yield Request(terms, "pair", f"{one.group} & {other.group}", part)
