"""Long documents read whole: the state is carried from piece to piece by `extend`, in memory that does not grow."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hybridlab.evaluation.evaluating import evaluating
from hybridlab.evaluation.measured import measured
from hybridlab.evaluation.scores import Breakdown, Sums, means, of_targets
from hybridlab.mixers.base import State
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import IGNORED, Batch

SLICES = ("position", "relative_position")


def streamed_nll(
    stack: Stack, task: Task, batches: Sequence[Batch], device: torch.device, *, split: str, piece: int, cache: int
) -> list[Measurement]:
    """Return the NLL of batches whose rows are whole documents, and by position; none of an encoder, which has no state.

    They are read `piece` tokens at a time, and a state that grows holds at most `cache` of them: see `read`.
    """
    if stack.classes is not None or not stack.plan.causal:
        return []
    breakdown = Breakdown(batches, [name for name in SLICES if name in task.slices])
    nll, tokens = Sums(breakdown), Sums(breakdown)
    with evaluating(stack), torch.inference_mode():
        for batch in batches:
            places, scored = breakdown.places(batch), of_targets(_nll(stack, batch, device, piece, cache), batch)
            nll.add(scored, places)
            tokens.add(np.ones_like(scored), places)
    rows = []
    for name, buckets in breakdown.buckets.items():
        counts = tokens.by(name)
        for bucket, found, count in zip(buckets.names, means(nll.by(name), counts), counts.sum(0), strict=True):
            if found is not None:
                rows.append(measured("streamed_nll", found, split=split, slice=name, bucket=bucket, tokens=int(count)))
    return rows


def _nll(stack: Stack, batch: Batch, device: torch.device, piece: int, cache: int) -> Float[Tensor, "b t"]:
    """Return the NLL of each target in nats, 0 where nothing is supervised."""
    found, done = torch.zeros(batch.targets.shape, dtype=torch.float64), 0
    for logits in read(stack, batch.inputs.to(device), piece, cache):
        here = slice(done, done + logits.shape[1])
        targets, logits = batch.targets[:, here].to(device), logits.to(accumulation_dtype(logits)).mT
        found[:, here] = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none").cpu()
        done = here.stop
    return found


def read(stack: Stack, tokens: Int[Tensor, "b t"], piece: int, cache: int) -> Iterator[Float[Tensor, "b n v"]]:
    """Yield the logits of rows in order, at most `piece` tokens at a time, each from the state that those before it left.

    Where the state of every mixer is bounded, that is all. Where some states grow, they hold `cache` tokens at most: every
    cache // 2 tokens they are emptied, and the cache // 2 tokens before are read once more, to fill them again. Mixers of
    bounded state then start from the state in which those tokens had found them, and so remember the whole document; the
    others see the last cache // 2 tokens at least, at positions that count from where their state begins. This takes the
    time twice.
    """
    segments = tokens.split(cache // 2, dim=1) if any(_grows(stack)) else [tokens]
    empty = state = begun = stack.initial_state(len(tokens))
    for index, segment in enumerate(segments):
        if index > 1:
            state = begun
            for part in segments[index - 1].split(piece, dim=1):
                _, state = stack.extend(part, state)
        begun = _emptied(stack, state, empty)
        for part in segment.split(piece, dim=1):
            logits, state = stack.extend(part, state)
            yield logits


def _emptied(stack: Stack, state: tuple[State, ...], empty: tuple[State, ...]) -> tuple[State, ...]:
    """Return a state of which the parts that grow are empty."""
    return tuple(none if grows else past for grows, past, none in zip(_grows(stack), state, empty, strict=True))


def _grows(stack: Stack) -> list[bool]:
    """Say of each layer whether the state of its mixer grows with the tokens."""
    return [not layer.mixer.bounded_state for layer in stack.layers]  # type: ignore[union-attr]
