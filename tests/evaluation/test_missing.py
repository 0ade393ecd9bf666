"""A measure that fails has no value and says why; the others lose nothing by it."""

import copy
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from hybridlab.config import measure_files
from hybridlab.evaluation.cost import measurements as cost
from hybridlab.evaluation.cost.layers import layer_milliseconds, plan_rows
from hybridlab.evaluation.measures.base import TargetMeasure
from hybridlab.evaluation.measures.nll import NLL, Perplexity
from hybridlab.evaluation.measures.sampled import SampledMeasure
from hybridlab.evaluation.passes import targets
from hybridlab.evaluation.passes.readings import Reading
from hybridlab.evaluation.passes.requests import Request, Term
from hybridlab.tasks.batch import Batch
from hybridlab.tasks.text.documents import Documents
from tests.evaluation.examples import CPU, OF_LAYERS, USUAL, Copy, Given, by_name, complete, evaluation_of, stack_of

GROUPS = {"early": {"mixer": "gated_conv"}, "deep": {"mixer": "full"}}
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}
VOCABULARY = 11


@dataclass(frozen=True)
class Failing(Reading):
    error: type[BaseException]

    def __call__(self, outputs):
        raise self.error("out of luck")


@dataclass(frozen=True)
class Infinite(Reading):
    def __call__(self, outputs):
        return np.full(len(outputs.targets), np.inf)


@dataclass(frozen=True)
class Mine(TargetMeasure):
    reading: Reading = Infinite()

    name, unit, definition = "mine", "1", "nothing"

    def requests(self, plan, groupings, length):
        yield Request((Term(1, reading=self.reading),), sliced=False)


class MySample(SampledMeasure):
    name, unit, definition = "my_sample", "1", "nothing"

    def collector(self):
        raise ZeroDivisionError("by nothing")


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (4, 33), generator=generator)
    slices = {"document": torch.arange(4)[:, None].expand(4, 32), "position": torch.arange(32).expand(4, 32)}
    batch = Batch(tokens[:, :-1], tokens[:, 1:], slices)
    return Given([batch], vocabulary=VOCABULARY, measures=("accuracy", "nll", "perplexity"))


@pytest.fixture(scope="module")
def stack():
    return stack_of(GROUPS, VOCABULARY, width=16, channel=CHANNEL)


def evaluation_with(task, monkeypatch, *measures):
    """Return an evaluation by the lens, the influence and some measures of these tests."""
    evaluation = evaluation_of("lens", "influence", task=task, groupings=["group"])
    monkeypatch.setitem(vars(evaluation), "built", {**evaluation.built, **{each.name: each for each in measures}})
    return evaluation


@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        (Mine(Failing(ValueError)), "ValueError: out of luck"),
        (Mine(Failing(torch.OutOfMemoryError)), "out of memory (OutOfMemoryError: out of luck)"),
        (Mine(Failing(MemoryError)), "out of memory (MemoryError: out of luck)"),
        (MySample(), "ZeroDivisionError: by nothing"),
    ],
    ids=["an error", "the GPU's memory", "the memory", "an error of another kind"],
)
def test_a_measure_that_fails_takes_nothing_else_along(stack, task, monkeypatch, measure, reason):
    whole = by_name(complete(evaluation_with(task, monkeypatch).measure(stack, task, CPU)))
    found = evaluation_with(task, monkeypatch, measure).measure(stack, task, CPU)
    assert by_name(found.measurements) == whole
    assert list(found.missing) == [measure.name]
    assert found.missing[measure.name].startswith(f"{reason} ({__file__}:")


def test_a_value_that_is_no_number_is_missing(stack, task, monkeypatch):
    found = evaluation_with(task, monkeypatch, Mine()).measure(stack, task, CPU)
    assert found.missing == {"mine": "not a finite number: test/mine is inf"}
    assert "test/lens/group/deep" in by_name(found.measurements)


def test_perplexity_beyond_all_numbers_is_missing_while_its_nll_is_kept(task, monkeypatch):
    stack = stack_of(GROUPS, VOCABULARY, width=16)
    with torch.no_grad():
        stack.head.weight *= 1e6
    found = evaluation_of(task=task).measure(stack, task, CPU)
    assert math.isfinite(by_name(found.measurements)["test/nll"].value)
    assert list(found.missing) == ["perplexity"]


def test_what_a_task_is_ranked_by_is_kept_as_it_is(task):
    stack = stack_of(GROUPS, VOCABULARY, width=16)
    with torch.no_grad():
        stack.norm.weight *= torch.nan
    found = by_name(evaluation_of("knockout", task=task).measure(stack, task, CPU).measurements)
    assert math.isnan(found["test/nll"].value)
    assert {each.measure for each in found.values()} == {"accuracy", "nll"}


def test_an_interrupt_is_not_a_missing_value(stack, task, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        evaluation_with(task, monkeypatch, Mine(Failing(KeyboardInterrupt))).measure(stack, task, CPU)


def test_even_the_nll_has_a_reason(stack, task, monkeypatch):
    monkeypatch.setattr(NLL, "requests", lambda *_: 1 / 0)
    found = evaluation_of("knockout", task=task).measure(stack, task, CPU)
    assert {"nll", "perplexity"} == set(found.missing)
    assert {each.measure for each in found.measurements} == {"accuracy", "knockout"}
    assert issubclass(Perplexity, NLL)


def test_running_out_of_memory_in_the_shared_pass_is_one_try_more(stack, task, monkeypatch):
    whole = complete(evaluation_with(task, monkeypatch).measure(stack, task, CPU))
    real, calls = targets.score, []

    def once_too_large(context, requests):
        calls.append(len(requests))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(context, requests)

    monkeypatch.setattr("hybridlab.evaluation.measures.base.score", once_too_large)
    found = complete(evaluation_with(task, monkeypatch).measure(stack, task, CPU))
    assert by_name(found) == by_name(whole)
    assert len(calls) == 1 + 4


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_every_measure_is_taken_of_weights_in_any_precision(corpus, dtype):
    task = Documents(seed=0, length=128, batch=2, path=str(corpus), test_share=0.1)
    groups = {"early": {"mixer": "gated_conv"}, "middle": {"mixer": "mamba2"}, "deep": {"mixer": "full"}}
    stack = stack_of(groups, 257, width=64, channel=CHANNEL).to(dtype)
    names = [name for name in measure_files() if name not in ("accuracy", "example_accuracy")]
    evaluation = evaluation_of(*names, task=task, window=128, stride=128, limit=256, batch=2)
    found = complete(evaluation.measure(stack, task, CPU))
    assert {each.measure for each in found} >= {"nll", "streamed_nll", "influence", "similarity", *OF_LAYERS}
    assert all(math.isfinite(each.value) for each in found)
    complete(cost.cost_measurements(stack, plan_rows(stack, 32), 32, CPU))


class Unused(Copy):
    """Copies, with a parameter that gets no gradient and one that takes none."""

    def __init__(self):
        super().__init__(lag=1)
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)


class Constant(Copy):
    """Adds the same to each token: no output depends on anything."""

    def __init__(self):
        super().__init__(lag=1)

    def forward(self, x, state=None):
        return torch.ones_like(x).detach()


@pytest.mark.parametrize("mixer", [Unused, Constant])
def test_a_parameter_without_a_gradient_and_a_constant_cost_no_measure(task, mixer):
    stack = stack_of(GROUPS, VOCABULARY, width=16, channel=CHANNEL)
    for layer in stack.layers:
        layer.mixer = mixer()
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        assert layer_milliseconds(copy.deepcopy(stack.layers[0]).to(dtype), 16, 32, CPU) > 0
    found = by_name(complete(evaluation_of("influence", "memory_tokens", task=task, batch=1).measure(stack, task, CPU)))
    lags = {name: each.value for name, each in found.items() if "memory_tokens" in name}
    assert lags == ({} if mixer is Constant else {name: pytest.approx(1, abs=0.2) for name in lags})
    assert bool(lags) == (mixer is Unused)


def test_layers_that_cannot_be_timed_keep_what_is_counted(stack, monkeypatch):
    plan = plan_rows(stack, 32)
    whole = complete(cost.cost_measurements(stack, plan, 32, CPU))

    def fails(*_):
        raise RuntimeError("expected m1 and m2 to have the same dtype")

    monkeypatch.setattr(cost, "layer_milliseconds", fails)
    found = cost.cost_measurements(stack, plan, 32, CPU)
    assert list(found.missing) == ["milliseconds"]
    assert found.missing["milliseconds"].startswith("RuntimeError: expected m1 and m2 to have the same dtype (")
    assert found.measurements == [each for each in whole if each.measure != "milliseconds"]


def test_n_gram_models_that_fail_are_missing(task, monkeypatch):
    def fails(*_, **__):
        raise UnicodeDecodeError("utf-8", b"", 0, 1, "invalid start byte")

    monkeypatch.setattr(Given, "baselines", fails, raising=False)
    found = cost.ngram_measurements(evaluation_of(task=task, **USUAL), task)
    assert found.measurements == []
    assert found.missing["ngram_bits_per_byte"].startswith("UnicodeDecodeError: ")
