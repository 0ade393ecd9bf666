"""Long documents read whole: the state is carried from piece to piece by `extend`, in memory that does not grow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hybridlab.evaluation.passes.eval_mode import evaluating
from hybridlab.evaluation.passes.from_interval import measured
from hybridlab.evaluation.passes.scores import Breakdown, Sums, means, of_targets
from hybridlab.mixers.base import State, check_counts
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.records.measurement import Measurement
from hybridlab.stack.model import Stack
from hybridlab.tasks.base import Task
from hybridlab.tasks.batch import IGNORED, Batch

SLICES = ("position", "relative_position")
WHOLE_DOCUMENT = 2**40  # tokens of a window: no document is longer


@dataclass(frozen=True, kw_only=True)
class Streaming:
    """The NLL of documents that are read whole, `piece` tokens and `batch` documents at a time; and by position.

    A state that grows holds at most `cache` tokens: see `read`. `limit` is how much of each document is read, from its
    start; null reads all of it. What is predicted of whole rows, by an encoder or through a bottleneck, is left out.

    The cost: every token is read once, and once more where some states grow and the document is longer than the cache.
    """

    piece: int = 512
    cache: int = 4096
    batch: int = 4
    limit: int | None = None

    def __post_init__(self) -> None:
        check_counts(piece=self.piece, batch=self.batch, limit=1 if self.limit is None else self.limit)
        if not self.cache >= 2:
            raise ValueError(f"cache={self.cache}: at least 2 tokens are needed, as half of them are read twice")

    def measure(
        self, stack: Stack, task: Task, batches: Sequence[Batch], device: torch.device, split: str
    ) -> list[Measurement]:
        """Return the rows of the record; `batches`, of windows, are not what is read here."""
        if task.classes is not None or task.bottleneck or not task.causal:
            return []
        whole = {"window": WHOLE_DOCUMENT, "stride": WHOLE_DOCUMENT, "limit": self.limit, "batch": self.batch}
        documents = list(task.evaluation_batches(split, **whole))
        breakdown = Breakdown(documents, [name for name in SLICES if name in task.slices])
        nll, tokens = Sums(breakdown), Sums(breakdown)
        with evaluating(stack), torch.inference_mode():
            for batch in documents:
                places = breakdown.places(batch)
                found = of_targets(_nll(stack, batch, device, self.piece, self.cache), batch)
                nll.add(found, places)
                tokens.add(np.ones_like(found), places)
        rows = []
        for name, buckets in breakdown.buckets.items():
            counts = tokens.by(name)
            for bucket, found, count in zip(buckets.names, means(nll.by(name), counts), counts.sum(0), strict=True):
                if found is not None:
                    where = {"slice": name, "bucket": bucket, "split": split, "tokens": int(count)}
                    rows.append(measured("streamed_nll", found, **where))
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
