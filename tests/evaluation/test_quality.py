"""Quality by layer group against the obvious computation, and on stacks whose answer is known."""

import math

import pytest
import torch
import torch.nn.functional as F

from hybridlab.config import mixer_files
from hybridlab.evaluation.cost import cost_rows, layer_costs, plan_rows
from hybridlab.evaluation.quality import INTACT, Probe, Quality
from hybridlab.stack.interventions import silenced
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.documents import Documents

GROUPS = {"early": {"mixer": "gated_conv"}, "middle": {"mixer": "mamba2 full"}, "deep": {"mixer": "linear"}}
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}
CPU = torch.device("cpu")


@pytest.fixture
def stack():
    torch.manual_seed(0)
    plan = expand({"width": 64, "groups": GROUPS, "channel": CHANNEL}, {}, mixer_files())
    return Stack(plan, 257)


@pytest.fixture
def task(corpus):
    return Documents(seed=0, length=32, batch=2, path=str(corpus), test_share=0.3)


@pytest.fixture
def quality():
    return Quality(split="test", window=64, stride=64, limit=200, batch=3, by_group=True)


def total_nll(stack, task, quality):
    """Sum NLL over all scored targets by a plain loop."""
    with torch.inference_mode():
        return sum(
            float(F.cross_entropy(stack(batch.inputs).flatten(0, 1), batch.targets.flatten(), reduction="sum"))
            for batch in quality.batches(task)
        )


def test_the_intact_nll_is_that_of_a_plain_loop(stack, task, quality):
    scores = quality.score(stack, task, CPU)
    assert scores[INTACT].nll.sum() == pytest.approx(total_nll(stack, task, quality), rel=1e-5)
    lengths = [min(200, n) for n in task.splits["test"].lengths]
    assert scores[INTACT].tokens.sum() == sum(lengths)
    rows = {row.name: row for row in quality.measure(stack, task, CPU)}
    assert rows["test/bits_per_byte"].value == pytest.approx(rows["test/nll"].value / math.log(2))
    assert rows["test/perplexity"].value == pytest.approx(math.exp(rows["test/nll"].value))
    assert rows["test/nll"].tokens == sum(lengths)


@pytest.mark.parametrize("part", ["mixer", "channel"])
def test_a_knockout_is_the_nll_of_the_silenced_stack(stack, task, quality, part):
    scores = quality.score(stack, task, CPU)
    for (grouping, group), layers in stack.plan.groupings().items():
        with silenced(stack, layers, part):
            expected = total_nll(stack, task, quality)
        assert scores[Probe("knockout", grouping, group, part)].nll.sum() == pytest.approx(expected, rel=1e-5)
    assert total_nll(stack, task, quality) == pytest.approx(scores[INTACT].nll.sum(), rel=1e-5)


def test_the_lens_of_the_last_group_is_the_intact_nll_and_of_the_first_that_of_a_shorter_stack(stack, task, quality):
    scores = quality.score(stack, task, CPU)
    assert (scores[Probe("lens", "group", "deep", "")].nll == scores[INTACT].nll).all()
    del stack.layers[1:]
    expected = total_nll(stack, task, quality)
    assert scores[Probe("lens", "group", "early", "")].nll.sum() == pytest.approx(expected, rel=1e-5)


def test_a_group_that_adds_nothing_has_a_knockout_of_exactly_0(stack, task, quality):
    torch.nn.init.zeros_(stack.layers[3].mixer.out.weight)
    rows = {row.name: row for row in quality.measure(stack, task, CPU)}
    silent, heard = rows["test/knockout/group/deep/mixer"], rows["test/knockout/group/early/mixer"]
    assert (silent.value, silent.low, silent.high) == (0.0, 0.0, 0.0)
    assert heard.value != 0.0


def test_quality_by_position_adds_up_to_the_whole(stack, task, quality):
    rows = quality.measure(stack, task, CPU)
    whole = next(row for row in rows if row.name == "test/nll")
    parts = [row for row in rows if row.measure == "nll" and row.slice == "position"]
    assert [row.bucket for row in parts] == ["0-63", "64-127", "128-255"]
    assert sum(row.tokens for row in parts) == whole.tokens
    assert sum(row.value * row.tokens for row in parts) / whole.tokens == pytest.approx(whole.value)


def test_evaluation_leaves_the_stack_as_it_was(stack, task, quality):
    stack.train()
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    quality.measure(stack, task, CPU)
    assert stack.training
    assert all(torch.equal(before[name], value) for name, value in stack.state_dict().items())
    assert not any(module._forward_hooks for module in stack.modules())


@pytest.mark.parametrize("bad", [{"window": 0}, {"stride": 65}, {"split": "training"}, {"limit": -1}])
def test_bad_settings_are_refused(bad):
    good = {"split": "test", "window": 64, "stride": 64, "limit": None, "batch": 1, "by_group": True}
    (name, value), *_ = bad.items()
    with pytest.raises(ValueError, match=f"^{name}={value}: "):
        Quality(**{**good, **bad})


def test_the_cost_of_a_stack_is_measured_on_its_layers(stack):
    length, width = 48, 64
    convolution, *_ = layer_costs(stack, length)
    channel = 2 * length * 3 * width * 64
    projections = 2 * length * (3 * width * width + width * width)
    assert convolution.flops - channel - projections == pytest.approx(2 * length * width * 4, rel=0.1)
    full = layer_costs(stack, length)[2]
    assert full.state_bytes == 2 * 4 * length * width
    assert layer_costs(stack, 2 * length)[2].state_bytes == 2 * full.state_bytes
    assert layer_costs(stack, 2 * length)[1].state_bytes == layer_costs(stack, length)[1].state_bytes

    rows = {row.name: row.value for row in cost_rows(stack, plan_rows(stack, length), length, CPU)}
    by_group = [rows[f"parameters/group/{group}"] for group in GROUPS]
    assert sum(by_group) + stack.embedding.weight.numel() + width == rows["parameters"]
    assert rows["flops"] == sum(rows[f"flops/group/{group}"] for group in GROUPS)
    assert rows["milliseconds/mixer/full"] > 0
