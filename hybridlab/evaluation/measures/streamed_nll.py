"""The NLL of long documents that are read whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hybridlab import validate
from hybridlab.evaluation.measures.base import Measure
from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.eval_mode import eval_mode
from hybridlab.evaluation.passes.intervals import means
from hybridlab.evaluation.passes.streaming import streamed_nll
from hybridlab.evaluation.passes.sums import Breakdown, Sums, of_targets
from hybridlab.records.measurement import Measurement
from hybridlab.stack.readout import Readout
from hybridlab.tasks.base import Task
from hybridlab.tasks.slices import POSITION, RELATIVE_POSITION

WHOLE_DOCUMENT = 2**40  # tokens of a window: no document is longer


@dataclass(frozen=True, kw_only=True)
class StreamedNLL(Measure):
    """The NLL of whole documents, read `chunk` tokens and `batch` documents at a time; and by
    position.

    A state that grows holds at most `cache` tokens (see
    `hybridlab.evaluation.passes.streaming.stream`). `limit` is how many bytes of each document are
    read, from its start; None reads all of it. A task that predicts from whole sequences is left
    out.

    The cost: every token is read once, and once more where some states grow and the document is
    longer than the cache.
    """

    name = "streamed_nll"
    unit = "nats/token"
    definition = (
        "NLL when a document is read whole, its state (a bounded cache where it grows) carried from chunk to chunk"
    )
    better = "lower"
    title = "NLL streamed\n(nats/token)"

    chunk: int = 512
    cache: int = 4096
    batch: int = 4
    limit: int | None = None

    def __post_init__(self) -> None:
        validate.whole(chunk=self.chunk, batch=self.batch)
        validate.whole(cache=self.cache, least=2)  # half of it is read twice
        validate.whole(limit=self.limit, null="no limit")

    def applies_to(self, task: Task) -> bool:
        """Return whether the task predicts every position from those before it."""
        return task.readout == Readout.EVERY_POSITION and task.causal

    @classmethod
    def measure_together(cls, measures: Sequence["StreamedNLL"], context: Context) -> Iterator[Measurement]:
        """Read the documents once for each measure: their settings differ."""
        for measure in measures:
            yield from measure._measure(context)

    def _measure(self, context: Context) -> Iterator[Measurement]:
        whole = {"window": WHOLE_DOCUMENT, "stride": WHOLE_DOCUMENT, "limit": self.limit, "batch": self.batch}
        documents = list(context.task.evaluation_batches(context.split, **whole))
        wanted = (POSITION, RELATIVE_POSITION)
        slices = [slice for slice in context.task.slices if slice in wanted]
        breakdown = Breakdown(documents, slices)
        nll, tokens = Sums(breakdown), Sums(breakdown)
        with eval_mode(context.stack), torch.inference_mode():
            for batch in documents:
                cells = breakdown.cells(batch)
                found = streamed_nll(context.stack, batch, context.device, self.chunk, self.cache)
                values = of_targets(found, batch)
                nll.add(values, cells)
                tokens.add(np.ones_like(values), cells)
        for name, buckets in breakdown.buckets.items():
            counts = tokens.by(name)
            for bucket, mean, count in zip(buckets.names, means(nll.by(name), counts), counts.sum(0), strict=True):
                if mean is not None:
                    yield self.measured(mean, slice=name, bucket=bucket, split=context.split, tokens=int(count))
