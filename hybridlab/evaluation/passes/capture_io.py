"""The inputs and outputs of a stack's mixers, captured for the time of a measurement."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from hybridlab.evaluation.passes.mixer_refs import MixerRef
from hybridlab.stack.model import Stack

Captured = dict[MixerRef, tuple[Tensor, Tensor]]  # input and output


@contextmanager
def capture_io(stack: Stack, mixers: Sequence[MixerRef]) -> Iterator[Captured]:
    """Yield a dictionary into which each forward pass of the eager stack puts the input and output
    of these mixers.
    """
    captured: Captured = {}

    def keep(mixer: MixerRef) -> Any:
        return lambda _module, inputs, output: captured.update({mixer: (inputs[0], output)})

    handles = [mixer.of(stack).register_forward_hook(keep(mixer)) for mixer in mixers]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()
