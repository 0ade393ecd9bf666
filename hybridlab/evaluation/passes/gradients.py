"""The gradient pass: from how far back the loss of a position comes, through each mixer.

The same for attention, recurrences, state spaces and convolutions, so that they compare.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hybridlab.evaluation.passes.buckets import Buckets
from hybridlab.evaluation.passes.capture_io import capture_io
from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.eval_mode import eval_mode
from hybridlab.evaluation.passes.mixer_refs import MixerRef, mixer_refs
from hybridlab.evaluation.passes.samples import Sample, draw_samples, num_units
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.slices import Slice


class GradientShares:
    """By mixer and unit: the shares of the gradient's norm by lag, and the sums of share times lag,
    over positions.

    y_t = mixer(x)_t, and u_t = d loss[t] / d y_t through the rest of the stack. The share of lag k
    at position t is the norm of d(u_t · y_t) / d x_{t-k}, with u_t held fixed, over the sum of
    these norms for all k: how much of its loss position t owes to x_{t-k} through this mixer alone.
    Positions ahead count by their distance. Where nothing comes through a mixer, it is left out.
    """

    def __init__(self, units: int, lags: Buckets, mixers: Sequence[MixerRef]) -> None:
        self.lags = lags
        self.by_lag = {mixer: np.zeros((units, len(lags))) for mixer in mixers}
        self.distances = {mixer: np.zeros((units, 1)) for mixer in mixers}

    def add(self, mixer: MixerRef, unit: int, lag: Float[np.ndarray, " t"], share: Float[np.ndarray, " t"]) -> None:
        """Take in the shares of one position."""
        self.by_lag[mixer][unit] += np.bincount(self.lags.of(lag.astype(np.int64)), share, len(self.lags))
        self.distances[mixer][unit] += lag @ share

    def total(self, mixers: Sequence[MixerRef]) -> Float[np.ndarray, "units lags"]:
        """Return the shares summed over some mixers."""
        return np.stack([self.by_lag[mixer] for mixer in mixers]).sum(0)


def gradient_shares(context: Context, share: float, positions: int, lag: Slice) -> GradientShares:
    """Take the gradients at some positions of a share of the sequences; `lag` is the slice that
    lags are put in buckets by.

    The cost, in plain evaluations: a forward and up to two backward passes over what comes before
    each position, about 2.5 times `share` times `positions`.
    """
    samples = draw_samples(context, share)
    longest = max((sample.tokens.shape[1] for sample in samples), default=1)
    mixers = mixer_refs(context.stack.plan)
    found = GradientShares(num_units(samples), Buckets(lag, [np.arange(longest)]), mixers)
    with eval_mode(context.stack):
        for sample in samples:
            for mixer, lags, shares in _shares(context.stack, sample, positions, mixers):
                found.add(mixer, sample.unit, lags, shares)
    return found


def _shares(
    stack: Stack, sample: Sample, positions: int, mixers: Sequence[MixerRef]
) -> Iterator[tuple[MixerRef, Float[np.ndarray, " t"], Float[np.ndarray, " t"]]]:
    """Yield, for each position and each mixer that its loss comes through, the lags and the shares
    of the gradient there.
    """
    for at in sample.some_positions(positions).tolist():
        read = sample.tokens[:, : at + 1] if stack.plan.causal else sample.tokens  # nothing else can have any influence
        with capture_io(stack, mixers) as captured, torch.enable_grad():
            loss = _loss(stack, read, sample.targets, at)
        used = [mixer for mixer in mixers if captured[mixer][1].requires_grad]  # a constant has no gradient
        if not used:
            continue
        outputs = torch.autograd.grad(
            loss, [captured[mixer][1] for mixer in used], retain_graph=True, materialize_grads=True
        )
        lags = (at - torch.arange(read.shape[1])).abs().double().numpy()
        for mixer, output in zip(used, outputs, strict=True):
            x, y = captured[mixer]
            (gradient,) = torch.autograd.grad(y[0, at], x, output[0, at], retain_graph=True, materialize_grads=True)
            norms = gradient[0].double().norm(dim=-1)
            if (total := norms.sum()) > 0:
                yield mixer, lags, (norms / total).cpu().numpy()


def _loss(stack: Stack, tokens: Int[Tensor, "1 t"], targets: Tensor, at: int) -> Float[Tensor, ""]:
    """Return the loss of one position, or of the whole sequence where targets are predicted from
    all of it.
    """
    x = stack.pooled(stack.run(stack.embedding(tokens)))
    if stack.pooling.by_position:
        x, targets = x[:, at : at + 1], targets[:, at : at + 1]
    scored = targets != IGNORED
    return stack.nll(x[scored], targets[scored]).sum()
