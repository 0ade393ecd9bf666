"""Whether a mixer learns as the layer that it is compared with: recall in the same small stack.

`python -m tests.mixers.learning --processes 16 --write` repeats the table of docs/mixers.md.
"""

import argparse
import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.linear import gated_delta
from hybridlab.report.runs.statistics import spread, t_quantile
from hybridlab.stack.model import Stack, initialise
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.synthetic.mqar import MQAR
from hybridlab.training.optimiser import AdamWCosine
from tests.mixers.reference import Reference
from tests.mixers.subject import CONF

PAGE = Path(__file__).parents[2] / "docs" / "mixers.md"
HEADER = """\
| mixer | reference | accuracy | the reference's | difference along the way | |
|---|---|---|---|---|---|
"""
CAPTION = "Measured with"
MARGIN = 0.1  # of accuracy: a difference that is shown to be smaller is none that matters
RECALL = 0.5  # a guess among the values shown is right in a quarter or less
CHECKS = 10  # of the accuracy during training
OURS, THEIRS = "ours", "theirs"
Arm = str  # OURS, THEIRS, or a name in HARMS


@dataclass(frozen=True)
class Lesson:
    """A mixer, the file and the class of its reference, and settings that both are built from.

    `recurrent` names a module of transformers, its function for whole sequences, and its function
    for single tokens: the first fills chunks of 64 tokens with zeros, which makes it the slower one
    here.
    """

    file: str
    cls: str
    settings: dict[str, Any]
    recurrent: tuple[str, str, str] | None = None

    @property
    def reference(self) -> type[Reference]:
        return getattr(importlib.import_module(f"tests.mixers.references.{self.file}"), self.cls)


@dataclass(frozen=True)
class Course:
    """The task, the width of the stack and the training, the same for both layers."""

    width: int = 48
    vocabulary: int = 128
    length: int = 48
    pairs: int = 6
    batch: int = 32
    steps: int = 1200
    lr: float = 3e-3
    held_out: int = 256


SMALL = Course(width=32, vocabulary=64, length=24, pairs=4, steps=800)  # what a test has time for

OLMO = ("olmo_hybrid", "torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule")
KIMI = ("kimi_linear", "chunk_kimi_delta_attention", "recurrent_kimi_delta_attention")
LESSONS = (
    Lesson("qwen3", "Qwen3", {"heads": 2, "kv_heads": 1, "qk_norm": True, "rope": 10000.0}),
    Lesson("olmo_hybrid", "OlmoHybridWithoutDecay", {"heads": 2, "gate": True, "negative_eigenvalues": False}, OLMO),
    Lesson(
        "olmo_hybrid",
        "OlmoHybrid",
        {"heads": 2, "expand_k": 0.75, "value_ratio": 2, "negative_eigenvalues": False},
        OLMO,
    ),
    Lesson("kimi_linear", "KimiLinear", {"heads": 2}, KIMI),
    Lesson("mamba", "Mamba", {"state": 16}),
    Lesson("mamba2", "Mamba2", {"state": 32, "head_width": 32}),
    Lesson("recurrent_gemma", "RecurrentGemma", {"heads": 2, "expand": 2.0}),
)


@contextmanager
def long_steps(stack: Stack) -> Iterator[None]:
    with torch.no_grad():
        stack.layers[1].mixer.step_bias.fill_(1.0)  # type: ignore[union-attr]
    yield


@contextmanager
def unscaled(_: Stack) -> Iterator[None]:
    rule = gated_delta.chunked_delta_rule
    with patch.object(gated_delta, "chunked_delta_rule", lambda q, *rest: rule(q * q.shape[-1] ** 0.5, *rest)):
        yield


# Faults of gated_delta that the comparison is tried on.
HARMS: dict[Arm, Callable[[Stack], AbstractContextManager[None]]] = {
    "all steps start near 1": long_steps,
    "queries are not divided by √k": unscaled,
}


def accuracies(lesson: Lesson, course: Course, arm: Arm, seed: int, device: str = "cpu") -> list[float]:
    """Train a short convolution and then the layer, and return the accuracy after each tenth."""
    torch.manual_seed(seed)
    stack = build(lesson, course.width, course.vocabulary, arm == THEIRS).to(device)
    if arm in HARMS:
        with HARMS[arm](stack):
            return train(stack, course, seed)
    with by_token(lesson.recurrent if arm == THEIRS else None):
        return train(stack, course, seed)


@contextmanager
def by_token(recurrent: tuple[str, str, str] | None) -> Iterator[None]:
    """Let a module of transformers use its function for single tokens throughout."""
    if recurrent is None:
        yield
        return
    module, chunked, single = recurrent
    modeling = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    with patch.object(modeling, chunked, getattr(modeling, single)):
        yield


def train(stack: Stack, course: Course, seed: int) -> list[float]:
    task = MQAR(
        seed=seed,
        vocabulary=course.vocabulary,
        length=course.length,
        batch=course.batch,
        pairs=course.pairs,
        held_out=course.held_out,
        random_non_queries=False,
    )
    device = stack.embedding.weight.device
    whole = {"window": course.length, "stride": course.length, "limit": None, "batch": course.held_out}
    held_out = next(task.evaluation_batches("test", **whole))
    # No weight decay: theirs has no tags of parameters without it.
    configured = AdamWCosine(lr=course.lr, weight_decay=0.0).configure(stack, course.steps)
    optimiser, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    found = []
    for step in range(1, course.steps + 1):
        batch = task.train_batch(step - 1)
        logits, targets = predict(stack, batch.inputs.to(device), batch.targets.to(device))
        optimiser.zero_grad()
        F.cross_entropy(logits, targets).backward()
        nn.utils.clip_grad_norm_(stack.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step * CHECKS % course.steps < CHECKS:
            with torch.no_grad():
                logits, targets = predict(stack, held_out.inputs.to(device), held_out.targets.to(device))
            found.append((logits.argmax(-1) == targets).float().mean().item())
    return found


def predict(stack: Stack, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    asked = targets != IGNORED
    return stack.logits(stack.hidden(inputs)[asked]), targets[asked]


def build(lesson: Lesson, width: int, vocabulary: int, theirs: bool) -> Stack:
    """Return the stack with our mixer, or with the reference in its place.

    In both, the weights of linear maps start by the rule of the stack and those of convolutions
    uniform, as in our mixers and in PyTorch; the rest, and the maps that our layer starts by a rule
    of its own, start as each layer starts them.
    """
    named = {"name": lesson.reference.mixer, **lesson.settings}
    groups = {"early": {"mixer": {"name": "short_conv", "conv_size": 3}}, "deep": {"mixer": named}}
    files = {file.stem: file for file in CONF.glob("*.yaml")}
    stack = Stack(expand({"width": width, "groups": groups}, {}, files), vocabulary)
    if theirs:
        ours = dict(stack.layers[1].mixer.named_parameters())  # type: ignore[union-attr]
        layer = lesson.reference(width=width, **lesson.settings)
        for each in layer.modules():
            if isinstance(each, nn.Conv1d):
                nn.init.uniform_(each.weight, -(each.kernel_size[0] ** -0.5), each.kernel_size[0] ** -0.5)
        maps = {id(each.weight): each for each in layer.modules() if isinstance(each, nn.Linear)}
        for name, weight in layer.weights().items():
            if id(weight) in maps:
                weight.takes_initialisation = getattr(ours[name], "takes_initialisation", True)
                if name == "out.weight":
                    layer.out = maps[id(weight)]
        stack.layers[1].mixer = layer  # type: ignore[union-attr]
        initialise(stack)
    return stack


@dataclass(frozen=True)
class Difference:
    """The difference of two means over seeds, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        if self.low > 0 or self.high < 0:
            return "differs"
        if self.low > -MARGIN and self.high < MARGIN:
            return f"equal within {MARGIN}"
        return "no difference shown"


def difference(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Difference:
    """Return the difference of two layers along the way: of the accuracy averaged over all checks.

    It also tells how fast a layer learns, and varies less from seed to seed than the last check.
    The interval is Student's for two samples with pooled variance: a seed's two layers share the
    data but not the weights that they start from.
    """
    means = [[sum(curve) / len(curve) for curve in arm] for arm in (ours, theirs)]
    value = fmean(means[0]) - fmean(means[1])
    degrees = len(ours) + len(theirs) - 2
    variance = sum((len(each) - 1) * spread(each) ** 2 for each in means) / degrees
    half = t_quantile(degrees) * math.sqrt(variance * (1 / len(ours) + 1 / len(theirs)))
    return Difference(value, value - half, value + half)


def row(lesson: Lesson, arm: Arm, curves: Mapping[Arm, list[list[float]]]) -> str:
    """Return a line of the table: the last accuracies, and the difference along the way.

    A harmed mixer is compared with the reference and with the unharmed one together.
    """
    others = curves[THEIRS] + ([] if arm == OURS else curves[OURS])
    found = difference(curves[arm], others)
    name = f"`{lesson.reference.mixer}`" + ("" if arm == OURS else f", if {arm}")
    reference = lesson.reference.source + ("" if arm == OURS else ", and ours")
    last = (", ".join(f"{each[-1]:.2f}" for each in some) for some in (curves[arm], others))
    interval = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    recalls = max(fmean(each[-1] for each in some) for some in (curves[arm], others)) > RECALL
    verdict = found.verdict if recalls else "neither recalls yet"
    return f"| {name} | {reference} | {' | '.join(last)} | {interval} | {verdict} |\n"


def caption(course: Course, seeds: int) -> str:
    """Return what was trained, as a paragraph that begins with CAPTION."""
    return fill(
        f"{CAPTION} width {course.width}, {course.pairs} pairs in {course.length} tokens, a vocabulary of "
        f"{course.vocabulary}, {course.steps} steps of {course.batch} sequences at a learning rate of {course.lr}, "
        f"{seeds} seeds, whose last accuracies are listed:",
        100,
    )


def write(text_above: str, rows: list[str]) -> None:
    """Replace the caption and the table in the page."""
    text = PAGE.read_text()
    start = text.index(CAPTION)
    end = text.index("\n\n", text.index(HEADER)) + 1
    PAGE.write_text(f"{text[:start]}{text_above}\n\n{HEADER}{''.join(rows)}{text[end:]}")


def train_all(
    course: Course, jobs: Sequence[tuple[Lesson, Arm, int]], processes: int, device: str = "cpu"
) -> Iterator[list[float]]:
    """Yield the accuracies of each job, trained in processes of one thread.

    Processes of their own also leave out the tests' checks of shapes, which double the time.
    """
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(one, course, device), jobs)


def one(course: Course, device: str, job: tuple[Lesson, Arm, int]) -> list[float]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lesson, arm, seed = job
    return accuracies(lesson, course, arm, seed, device)


def main() -> None:
    """Train all pairs and the harmed mixer, print the table, and with --write put it into the
    page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the course of the test")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--mixers", nargs="*", default=[lesson.reference.mixer for lesson in LESSONS])
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    course = SMALL if given.small else Course()
    course = replace(course, steps=given.steps or course.steps)
    arms = [
        (lesson, arm)
        for lesson in LESSONS
        if lesson.reference.mixer in given.mixers
        for arm in (THEIRS, OURS, *(HARMS if lesson.reference.mixer == "gated_delta" else ()))
    ]
    jobs = [(lesson, arm, seed) for lesson, arm in arms for seed in range(given.seeds)]
    curves: dict[str, dict[Arm, list[list[float]]]] = {}
    trained = train_all(course, jobs, given.processes, given.device)
    for (lesson, arm, seed), curve in zip(jobs, trained, strict=True):
        curves.setdefault(lesson.reference.mixer, {}).setdefault(arm, []).append(curve)
        print(lesson.reference.mixer, arm, seed, *(f"{each:.3f}" for each in curve), flush=True)
    print(caption(course, given.seeds))
    rows = [row(lesson, arm, curves[lesson.reference.mixer]) for lesson, arm in arms if arm != THEIRS]
    print(HEADER + "".join(rows))
    if given.write:
        write(caption(course, given.seeds), rows)


if __name__ == "__main__":
    main()
