"""How much of the prediction is there after a layer group."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from hybridlab.evaluation.measures.base import TargetMeasure
from hybridlab.evaluation.passes.readings import LensNLL, TunedLensNLL
from hybridlab.evaluation.passes.requests import Request, Term, layer_groups
from hybridlab.stack.plan import Plan


class Lens(TargetMeasure):
    """The logit lens: the NLL when the residual stream after a group is read by the final norm and
    head.
    """

    name = "lens"
    unit = "nats/token"
    definition = "logit lens: NLL when the residual stream after the layer group is read by the final norm and head"
    source = "nostalgebraist 2020; arXiv:2303.08112"
    title = "Logit lens\nNLL"
    reading: ClassVar[type[LensNLL]] = LensNLL

    def requests(self, plan: Plan, groupings: Sequence[str], length: int) -> Iterator[Request]:
        """Ask for the last layer of each group; the layers of one kind of mixer end nowhere in
        particular.
        """
        for group in layer_groups(plan, [grouping for grouping in groupings if grouping != "mixer"]):
            terms = (Term(1, reading=self.reading(group.layers[-1])),)
            yield Request(terms, group.grouping, group.group, sliced=group.grouping != "layer")


class TunedLens(Lens):
    """The same after an affine map to the last residual stream, fitted on the training split by
    ridge regression.
    """

    name = "tuned_lens"
    definition = "as the logit lens, after an affine map fitted on the training split by ridge regression"
    title = "Tuned lens\nNLL"
    reading = TunedLensNLL
