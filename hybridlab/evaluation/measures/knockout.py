"""What a layer group adds: the loss when its mixers add nothing."""

from collections.abc import Iterable, Sequence

from hybridlab.evaluation.measures.base import TargetMeasure
from hybridlab.evaluation.passes.interventions import MeanAblation, ZeroAblation
from hybridlab.evaluation.passes.requests import Request, ablations
from hybridlab.stack.plan import Plan


class Knockout(TargetMeasure):
    """Zero ablation: the rise of the NLL when the mixers, or the channel mixers, of a group add
    nothing.
    """

    name = "knockout"
    unit = "nats/token"
    definition = "NLL when every mixer (or channel mixer) of the group adds nothing, minus the intact NLL"
    source = "lesion study, arXiv:1605.06431"
    title = "Zero\nablation"

    def requests(self, plan: Plan, groupings: Sequence[str], length: int) -> Iterable[Request]:
        """Ask for each group, and for each part of parallel mixers."""
        return ablations(plan, groupings, ZeroAblation)


class MeanKnockout(TargetMeasure):
    """Mean ablation: the same when they add their mean output over training positions instead."""

    name = "mean_knockout"
    unit = "nats/token"
    definition = "as zero ablation, but the mixers add their mean output over training positions"
    source = "arXiv:2211.00593"
    title = "Mean\nablation"

    def requests(self, plan: Plan, groupings: Sequence[str], length: int) -> Iterable[Request]:
        """Ask for each group, and for each part of parallel mixers."""
        return ablations(plan, groupings, MeanAblation)
