"""What the mixers of a stack are given and what they return, kept for the time of a measurement."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hybridlab.evaluation.passes.mixer_refs import Member
from hybridlab.stack.model import Stack


@contextmanager
def watching(stack: Stack, members: Sequence[Member]) -> Iterator[dict[Member, tuple[Tensor, Tensor]]]:
    """Give a dictionary in which each forward pass of the eager stack leaves the input and the output of these mixers."""
    seen: dict[Member, tuple[Tensor, Tensor]] = {}

    def keep(member: Member) -> Any:
        return lambda _module, inputs, output: seen.update({member: (inputs[0], output)})

    handles = [member.of(stack).register_forward_hook(keep(member)) for member in members]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
