"""What the contract asks about one measure under test, and what it is taken of."""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch

from hybridlab.build import find_target
from hybridlab.evaluation.measures.base import Measure, TargetMeasure
from hybridlab.evaluation.measures.build import build_measure
from hybridlab.evaluation.passes.requests import Request
from hybridlab.stack.model import Stack
from hybridlab.stack.readout import Readout
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import Given, settings_of, stack_of

CONF = Path(__file__).parents[3] / "conf" / "evaluation" / "measures"
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}
VOCABULARY, WIDTH, LENGTH, SEQUENCES = 11, 16, 40, 10
GROUPINGS = ["group", "mixer", "layer"]
PARALLEL = {"mixer": [{"parallel": ["full", "short_conv"]}]}


@dataclass(frozen=True)
class Subject:
    """A measure as its YAML declares it."""

    file: Path

    @property
    def name(self) -> str:
        return self.file.stem

    @cached_property
    def node(self) -> dict[str, Any]:
        return settings_of(self.file)

    @property
    def cls(self) -> type[Measure]:
        return find_target(self.node, self.name)

    def build(self) -> Measure:
        return build_measure(self.node, f"measures.{self.name}")

    def differences(self, case: "Case") -> list[Request]:
        """Return its requests if their signs add up to 0, so that its values are differences."""
        measure = self.build()
        if not isinstance(measure, TargetMeasure) or type(measure).summarise is not TargetMeasure.summarise:
            return []
        requests = list(measure.requests(case.stack().plan, GROUPINGS, LENGTH))
        balanced = all(sum(term.sign for term in request.terms) == 0 for request in requests)
        return requests if balanced and measure.scale(0.0) == 0 else []


@dataclass(frozen=True, eq=False)
class Case:
    """A kind of task with a stack for it; `groups` and `channel` are the stack's."""

    name: str
    groups: dict[str, Any]
    readout: Readout = Readout.EVERY_POSITION
    channel: dict[str, Any] | None = None
    packed: bool = False  # two documents a sequence
    padded: bool = False

    @property
    def classes(self) -> int | None:
        return 3 if self.readout in (Readout.SEQUENCE_MEAN, Readout.PAIR_OF_MEANS) else None

    def stack(self) -> Stack:
        """Return the stack in float64, in evaluation mode."""
        causal = self.classes is None
        return stack_of(
            self.groups,
            VOCABULARY,
            width=WIDTH,
            channel=self.channel,
            classes=self.classes,
            causal=causal,
            readout=self.readout,
        ).double()

    def task(self, batch: int = 4) -> Given:
        """Return the task, evaluated in batches of some number of sequences."""
        sequences = self._sequences(SEQUENCES, seed=0)
        batches = [_take(sequences, first, first + batch) for first in range(0, SEQUENCES, batch)]
        task = Given(
            batches,
            vocabulary=VOCABULARY,
            classes=self.classes,
            readout=self.readout,
            training=[self._sequences(4, seed=1)],
            bytes_of_token=1 + torch.arange(VOCABULARY) % 3,
        )
        task.causal = self.classes is None
        return task

    def _sequences(self, count: int, seed: int) -> Batch:
        draw = torch.Generator().manual_seed(seed)
        inputs, targets = torch.randint(VOCABULARY, (2, count, LENGTH), generator=draw)
        position, sequence = torch.arange(LENGTH).expand(count, LENGTH), torch.arange(count)
        targets[torch.rand(count, LENGTH, generator=draw) < 0.3] = IGNORED
        slices = {"document": sequence[:, None].expand(count, LENGTH), "position": 4 * position}
        documents = None
        if self.packed:
            documents = slices["document"] = 2 * sequence[:, None] + position // 24
            slices["position"] = 4 * (position % 24)
        if self.padded:
            documents = torch.where(position < 20 + sequence[:, None], 0, -1)
        if self.readout == Readout.PAIR_OF_MEANS:
            documents = documents * (position >= 15)
        if self.classes is not None:
            targets, slices = sequence % self.classes, {"document": sequence, "position": 0 * sequence}
        return Batch(inputs, targets, slices, documents)


CASES = {
    case.name: case
    for case in (
        Case("decoder", {"early": PARALLEL, "deep": {"mixer": "linear full"}}, channel=CHANNEL),
        Case("packed", {"early": PARALLEL, "deep": {"mixer": "gated_conv"}}, packed=True),
        Case("encoder", {"early": PARALLEL, "deep": {"mixer": "linear"}}, Readout.SEQUENCE_MEAN, padded=True),
        Case("pair", {"early": PARALLEL, "deep": {"mixer": "linear"}}, Readout.PAIR_OF_MEANS, padded=True),
        Case("bottleneck", {"early": PARALLEL, "deep": {"mixer": "linear"}}, Readout.LAST_POSITION),
    )
}
UNMIXED = Case("unmixed", {"early": {"mixer": "identity"}, "deep": {"mixer": "identity identity"}}, channel=CHANNEL)


@cache
def package_subjects() -> tuple[Subject, ...]:
    """Return the measures that come with the package."""
    return tuple(Subject(file) for file in sorted(CONF.glob("*.yaml")))


def _take(batch: Batch, first: int, end: int) -> Batch:
    slices = {name: fact[first:end] for name, fact in batch.slices.items()}
    documents = None if batch.documents is None else batch.documents[first:end]
    return Batch(batch.inputs[first:end], batch.targets[first:end], slices, documents)
