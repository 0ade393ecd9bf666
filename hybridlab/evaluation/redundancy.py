"""What in a stack may be more than it needs: layers that turn the residual stream little, groups that add the same."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from hybridlab.evaluation.cka import LinearCKA
from hybridlab.evaluation.evaluating import evaluating
from hybridlab.evaluation.measured import measured
from hybridlab.evaluation.samples import Sample, samples
from hybridlab.evaluation.scores import Interval, means
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import Batch

ROWS = 32  # of the split


def redundancy(stack: Stack, batches: Sequence[Batch], device: torch.device, *, split: str) -> list[Measurement]:
    """Return `block_influence` of each layer and layer group, and the `similarity` of each pair of layer groups.

    Block influence is 1 - cos(before, after), of the residual stream before and after the layers, averaged over the
    positions where something is predicted (ShortGPT, 2403.03853, equation 1).

    Similarity is the linear CKA between what two groups add to the residual stream at these positions. It is no mean over
    documents, and has no interval. A group that adds nothing is like none.

    The cost: a forward pass over ROWS rows, and for CKA products of [positions, width] matrices in float64.
    """
    drawn = samples(batches, ROWS, 1, device)
    declared = {
        group: (layers[0], layers[-1] + 1)
        for (grouping, group), layers in stack.plan.groupings().items()
        if grouping == "group"
    }
    spans = {("layer", str(index)): (index, index + 1) for index in range(len(stack.layers))}
    spans |= {("group", group): span for group, span in declared.items()}
    turned = np.zeros((1 + max(sample.unit for sample in drawn), len(spans)))
    positions, likeness = np.zeros_like(turned), LinearCKA()
    with evaluating(stack), torch.inference_mode():
        for sample in drawn:
            stream = list(_residuals(stack, sample))
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
    units = int((positions[:, 0] > 0).sum())
    for pair, value in likeness.pairs():
        alike = Interval(value, None, None, units)
        rows.append(measured("similarity", alike, grouping="pair", group=" & ".join(pair), **stated))
    return rows


def _residuals(stack: Stack, sample: Sample) -> Iterator[Float64[Tensor, "n d"]]:
    """Yield the residual stream in front of each layer, and behind the last, at the places of a sample."""
    x = stack.embedding(sample.tokens)
    yield x[0, sample.places].double()
    for layer in stack.layers:
        x = layer(x)
        yield x[0, sample.places].double()
