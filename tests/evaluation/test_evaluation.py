"""Quality by layer group against the obvious computation."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from hybridlab.build import build
from hybridlab.errors import ConfigError
from hybridlab.stack.interventions import zero_ablated
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.text.documents import Documents
from tests.evaluation.examples import CPU, OF_LAYERS, USUAL, by_name, complete, evaluation_of, stack_of

GROUPS = {"early": {"mixer": "gated_conv"}, "middle": {"mixer": "mamba2 full"}, "deep": {"mixer": "linear"}}
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}


@pytest.fixture
def stack():
    return stack_of(GROUPS, 257, width=64, channel=CHANNEL)


@pytest.fixture
def task(corpus):
    return Documents(seed=0, length=32, batch=2, path=str(corpus), test_share=0.3)


@pytest.fixture
def evaluation(task):
    return evaluation_of("knockout", "lens", task=task, limit=200, batch=3)


@pytest.fixture
def measured(stack, task, evaluation):
    return by_name(complete(evaluation.measure(stack, task, CPU)))


def mean_nll(stack, task, evaluation):
    """Average the NLL over all scored targets by a plain loop."""
    found = []
    with torch.inference_mode():
        for batch in evaluation.batches(task):
            nll = F.cross_entropy(stack(batch.inputs).mT, batch.targets, reduction="none")
            found.append(nll[batch.targets != IGNORED])
    return pytest.approx(float(torch.cat(found).double().mean()), rel=1e-5)


def test_the_intact_nll_is_that_of_a_plain_loop(stack, task, evaluation, measured):
    assert measured["test/nll"].value == mean_nll(stack, task, evaluation)
    lengths = [min(200, n) for n in task.splits["test"].lengths]
    assert measured["test/bits_per_byte"].value == pytest.approx(measured["test/nll"].value / math.log(2))
    assert measured["test/perplexity"].value == pytest.approx(math.exp(measured["test/nll"].value))
    assert measured["test/perplexity"].high == pytest.approx(math.exp(measured["test/nll"].high))
    assert (measured["test/nll"].tokens, measured["test/nll"].n) == (sum(lengths), len(lengths))


@pytest.mark.parametrize("part", ["mixer", "channel"])
def test_a_knockout_is_the_nll_of_the_ablated_stack_minus_the_intact_one(stack, task, evaluation, measured, part):
    for (grouping, group), layers in stack.plan.groupings().items():
        with zero_ablated(stack, layers, part):
            added = measured[f"test/knockout/{grouping}/{group}/{part}"].value
            assert measured["test/nll"].value + added == mean_nll(stack, task, evaluation)
    assert measured["test/nll"].value == mean_nll(stack, task, evaluation)


def test_the_lens_of_the_last_group_is_the_intact_nll_and_of_the_first_that_of_a_shorter_stack(
    stack, task, evaluation, measured
):
    assert measured["test/lens/group/deep"].value == measured["test/nll"].value
    del stack.layers[1:]
    assert measured["test/lens/group/early"].value == mean_nll(stack, task, evaluation)


def test_quality_by_position_adds_up_to_the_whole(measured):
    whole = measured["test/nll"]
    parts = [each for each in measured.values() if each.measure == "nll" and each.slice == "position"]
    assert [each.bucket for each in parts] == ["0-63", "64-127", "128-255"]
    assert sum(each.tokens for each in parts) == whole.tokens
    assert sum(each.value * each.tokens for each in parts) / whole.tokens == pytest.approx(whole.value)


def test_evaluation_leaves_the_stack_as_it_was(stack, task):
    stack.train()
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    complete(evaluation_of(*OF_LAYERS, task=task, limit=40, intervention_budget=3.0).measure(stack, task, CPU))
    assert stack.training
    assert all(torch.equal(before[name], value) for name, value in stack.state_dict().items())
    assert not any(module._forward_hooks or "forward" in vars(module) for module in stack.modules())


@pytest.mark.parametrize(
    "bad",
    [
        {"window": 0},
        {"stride": 65},
        {"split": "training"},
        {"limit": -1},
        {"batch": 0},
        {"measures": ["knockout"]},
        {"groupings": "group"},
        {"groupings": ["groups"]},
        {"slices": "position"},
        {"intervention_budget": 0},
    ],
)
def test_bad_settings_are_refused(bad):
    (name, value), *_ = bad.items()
    node = {"_target_": "hybridlab.evaluation.evaluation.Evaluation", **USUAL, **bad}
    with pytest.raises(ConfigError, match=f"^`evaluation.{name}={re.escape(str(value))}`: "):
        build(node, "evaluation")
