"""Quality by layer group against the obvious computation, and on stacks whose answer is known."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from hybridlab.evaluation.cost.layers import cost_rows, layer_costs, plan_rows
from hybridlab.evaluation.passes.probes import MEASURES
from hybridlab.stack.interventions import silenced
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.text.documents import Documents
from tests.evaluation.examples import quality_of, stack_of

GROUPS = {"early": {"mixer": "gated_conv"}, "middle": {"mixer": "mamba2 full"}, "deep": {"mixer": "linear"}}
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}
CPU = torch.device("cpu")


@pytest.fixture
def stack():
    return stack_of(GROUPS, 257, width=64, channel=CHANNEL)


@pytest.fixture
def task(corpus):
    return Documents(seed=0, length=32, batch=2, path=str(corpus), test_share=0.3)


@pytest.fixture
def quality():
    return quality_of(limit=200, batch=3)


@pytest.fixture
def rows(stack, task, quality):
    return {row.name: row for row in quality.measure(stack, task, CPU)}


def mean_nll(stack, task, quality):
    """Average the NLL over all scored targets by a plain loop."""
    found = []
    with torch.inference_mode():
        for batch in quality.batches(task):
            nll = F.cross_entropy(stack(batch.inputs).mT, batch.targets, reduction="none")
            found.append(nll[batch.targets != IGNORED])
    return pytest.approx(float(torch.cat(found).double().mean()), rel=1e-5)


def test_the_intact_nll_is_that_of_a_plain_loop(stack, task, quality, rows):
    assert rows["test/nll"].value == mean_nll(stack, task, quality)
    lengths = [min(200, n) for n in task.splits["test"].lengths]
    assert rows["test/bits_per_byte"].value == pytest.approx(rows["test/nll"].value / math.log(2))
    assert rows["test/perplexity"].value == pytest.approx(math.exp(rows["test/nll"].value))
    assert rows["test/perplexity"].high == pytest.approx(math.exp(rows["test/nll"].high))
    assert (rows["test/nll"].tokens, rows["test/nll"].n) == (sum(lengths), len(lengths))


@pytest.mark.parametrize("part", ["mixer", "channel"])
def test_a_knockout_is_the_nll_of_the_silenced_stack_less_the_intact_one(stack, task, quality, rows, part):
    for (grouping, group), layers in stack.plan.groupings().items():
        with silenced(stack, layers, part):
            added = rows[f"test/knockout/{grouping}/{group}/{part}"].value
            assert rows["test/nll"].value + added == mean_nll(stack, task, quality)
    assert rows["test/nll"].value == mean_nll(stack, task, quality)


def test_the_lens_of_the_last_group_is_the_intact_nll_and_of_the_first_that_of_a_shorter_stack(
    stack, task, quality, rows
):
    assert rows["test/lens/group/deep"].value == rows["test/nll"].value
    del stack.layers[1:]
    assert rows["test/lens/group/early"].value == mean_nll(stack, task, quality)


def test_quality_by_position_adds_up_to_the_whole(rows):
    whole = rows["test/nll"]
    parts = [row for row in rows.values() if row.measure == "nll" and row.slice == "position"]
    assert [row.bucket for row in parts] == ["0-63", "64-127", "128-255"]
    assert sum(row.tokens for row in parts) == whole.tokens
    assert sum(row.value * row.tokens for row in parts) / whole.tokens == pytest.approx(whole.value)


def test_evaluation_leaves_the_stack_as_it_was(stack, task):
    stack.train()
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    quality_of(limit=40, probes=list(MEASURES), probe_budget=3.0).measure(stack, task, CPU)
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
        {"probes": ["knokout"]},
        {"by": "group"},
        {"slices": ["pair"]},
        {"probe_budget": 0},
    ],
)
def test_bad_settings_are_refused(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ValueError, match=f"^{name}={re.escape(str(value))}: "):
        quality_of(**bad)


def test_the_cost_of_a_stack_is_measured_on_its_layers(stack):
    length, width = 48, 64
    convolution, *_ = layer_costs(stack, length)
    channel = 2 * length * 3 * width * 64
    projections = 2 * length * (3 * width * width + width * width)
    assert convolution.flops - channel - projections == pytest.approx(2 * length * width * 3, rel=0.1)
    full = layer_costs(stack, length)[2]
    assert full.state_bytes == 2 * 4 * length * width
    assert layer_costs(stack, 2 * length)[2].state_bytes == 2 * full.state_bytes
    assert layer_costs(stack, 2 * length)[1].state_bytes == layer_costs(stack, length)[1].state_bytes

    rows = {row.name: row.value for row in cost_rows(stack, plan_rows(stack, length), length, CPU)}
    by_group = [rows[f"parameters/group/{group}"] for group in GROUPS]
    assert sum(by_group) + stack.embedding.weight.numel() + width == rows["parameters"]
    assert rows["flops"] == sum(rows[f"flops/group/{group}"] for group in GROUPS)
    assert rows["milliseconds/mixer/full"] > 0
