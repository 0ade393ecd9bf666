"""The pass over sampled documents, one at a time, by the intact stack."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from hybridlab.evaluation.passes.capture_io import Captured, capture_io
from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.eval_mode import eval_mode
from hybridlab.evaluation.passes.mixer_refs import MixerRef
from hybridlab.evaluation.passes.samples import Sample
from hybridlab.stack.model import Stack

T = TypeVar("T")


class SampleOutputs:
    """What the intact stack makes of one sampled document."""

    def __init__(
        self, stack: Stack, sample: Sample, streams: Sequence[Float[Tensor, "1 t d"]], captured: Captured
    ) -> None:
        self.stack = stack
        self.sample = sample
        self.streams = streams  # the residual stream in front of each layer, and after the last
        self.captured = captured  # input and output of the mixers that the collectors asked for
        self._found: dict[Any, Any] = {}

    def once(self, key: Any, compute: Callable[[], T]) -> T:
        """Compute something that several collectors need, once for this document."""
        if key not in self._found:
            self._found[key] = compute()
        return self._found[key]

    def streams_predicted_from(self) -> list[Float[Tensor, "m d"]]:
        """Return the streams at the positions that something is predicted from, in float64."""
        return self.once("streams", lambda: [x[0, self.sample.positions].double() for x in self.streams])


class Collector:
    """Sums over sampled documents, from which measures are summarised; made anew for each
    evaluation.
    """

    def captures(self) -> Sequence[MixerRef]:
        """Return the mixers whose input and output it needs."""
        return ()

    def add(self, outputs: SampleOutputs) -> None:
        """Take in one document."""
        raise NotImplementedError


def collect(context: Context, samples: Iterable[Sample], collectors: Sequence[Collector]) -> None:
    """Run every sampled document through the stack once, for all collectors."""
    stack = context.stack
    captures = list(dict.fromkeys(mixer for collector in collectors for mixer in collector.captures()))
    with eval_mode(stack), torch.inference_mode():
        for sample in samples:
            with capture_io(stack, captures) as captured:
                streams = list(stack.residuals(sample.tokens))
            outputs = SampleOutputs(stack, sample, streams, captured)
            for collector in collectors:
                collector.add(outputs)
