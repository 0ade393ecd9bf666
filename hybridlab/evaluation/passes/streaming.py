"""The pass that reads long documents whole: `extend` carries the state from chunk to chunk, in
memory that does not grow.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hybridlab.mixers.base import State
from hybridlab.ops.precision import accumulation_dtype
from hybridlab.stack.model import Stack
from hybridlab.tasks.batch import IGNORED, Batch


def streamed_nll(stack: Stack, batch: Batch, device: torch.device, chunk: int, cache: int) -> Float[Tensor, "b t"]:
    """Return the NLL of each target in nats, 0 where nothing is supervised."""
    found, done = torch.zeros(batch.targets.shape, dtype=torch.float64), 0
    for logits in stream(stack, batch.inputs.to(device), chunk, cache):
        here = slice(done, done + logits.shape[1])
        targets, logits = batch.targets[:, here].to(device), logits.to(accumulation_dtype(logits)).mT
        found[:, here] = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none").cpu()
        done = here.stop
    return found


def stream(stack: Stack, tokens: Int[Tensor, "b t"], chunk: int, cache: int) -> Iterator[Float[Tensor, "b n v"]]:
    """Yield the logits of sequences in order, at most `chunk` tokens at a time, each from the state
    left by those before.

    Where the state of every mixer is bounded, that is all. States that grow hold at most `cache`
    tokens: when the cache is full, it is rebuilt from its most recent half, by reading those tokens
    again from an empty cache. Mixers of bounded state then start from the state that they had in
    front of those tokens, and so remember the whole document; the others see at least the last
    cache // 2 tokens, at positions that count from where their cache begins. This doubles the time.
    """
    segments = tokens.split(cache // 2, dim=1) if any(_grows(stack)) else [tokens]
    empty = state = begun = stack.initial_state(len(tokens))
    for index, segment in enumerate(segments):
        if index > 1:
            state = begun
            for part in segments[index - 1].split(chunk, dim=1):
                _, state = stack.extend(part, state)
        begun = _with_empty_caches(stack, state, empty)
        for part in segment.split(chunk, dim=1):
            logits, state = stack.extend(part, state)
            yield logits


def _with_empty_caches(stack: Stack, state: tuple[State, ...], empty: tuple[State, ...]) -> tuple[State, ...]:
    """Return a state whose growing parts are empty."""
    return tuple(none if grows else past for grows, past, none in zip(_grows(stack), state, empty, strict=True))


def _grows(stack: Stack) -> list[bool]:
    """Return for each layer whether the state of its mixer grows with the tokens."""
    return [not layer.mixer.bounded_state for layer in stack.layers]  # type: ignore[union-attr]
