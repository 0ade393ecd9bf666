"""What in a stack may be more than it needs: layers that turn the residual stream little, groups that add the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hybridlab.evaluation.passes.cka import LinearCKA
from hybridlab.evaluation.passes.eval_mode import evaluating
from hybridlab.evaluation.passes.from_interval import measured
from hybridlab.evaluation.passes.samples import check_share, samples
from hybridlab.evaluation.passes.scores import Interval, means
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import Batch


@dataclass(frozen=True, kw_only=True)
class Redundancy:
    """Block influence of each layer and layer group, and the similarity of each pair of layer groups, on a share of the rows.

    Block influence is 1 - cos(before, after), of the residual stream before and after the layers, averaged over the
    positions that something is predicted from (ShortGPT, 2403.03853, equation 1).

    Similarity is the linear CKA between what two groups add to the residual stream at these positions. It is no mean over
    documents, and has no interval. A group that adds nothing is like none.

    The cost, in plain evaluations: `share`, and for CKA products of [positions, width] matrices in float64.
    """

    share: float = 1 / 16

    def __post_init__(self) -> None:
        check_share(self.share)

    def measure(
        self, stack: Stack, task: Task, batches: Sequence[Batch], device: torch.device, split: str
    ) -> list[Measurement]:
        """Return the rows of the record."""
        drawn = samples(stack, batches, self.share, 1, device)
        declared = {
            group: (layers[0], layers[-1] + 1)
            for (grouping, group), layers in stack.plan.groupings().items()
            if grouping == "group"
        }
        spans = {("group", group): span for group, span in declared.items()}
        spans |= {("layer", str(index)): (index, index + 1) for index in range(len(stack.layers))}
        units = 1 + max((sample.unit for sample in drawn), default=0)
        turned = np.zeros((units, len(spans)))
        positions, likeness = np.zeros_like(turned), LinearCKA()
        with evaluating(stack), torch.inference_mode():
            for sample in drawn:
                stream = [x[0, sample.places].double() for x in stack.residuals(sample.tokens)]
                cosines = [torch.cosine_similarity(stream[first], stream[end], dim=-1) for first, end in spans.values()]
                turned[sample.unit] += (1 - torch.stack(cosines)).sum(1).cpu().numpy()
                positions[sample.unit] += len(sample.places)
                likeness.add({group: stream[end] - stream[first] for group, (first, end) in declared.items()})
        stated = {"split": split, "tokens": likeness.count}
        rows = [
            measured("block_influence", found, grouping=grouping, group=group, **stated)
            for (grouping, group), found in zip(spans, means(turned, positions), strict=True)
            if found is not None
        ]
        for pair, value in likeness.pairs():
            alike = Interval(value, None, None, int((positions[:, 0] > 0).sum()))
            rows.append(measured("similarity", alike, grouping="pair", group=" & ".join(pair), **stated))
        return rows
