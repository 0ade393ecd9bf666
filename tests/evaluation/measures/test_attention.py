"""Attention by group against weights written out, and where the answer is known."""

import math

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.evaluation.measures.attention import Attention
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import Given, readout_of

CPU = torch.device("cpu")


def stack_of(classes=None, **mixers):
    torch.manual_seed(0)
    groups = {group: {"mixer": mixer} for group, mixer in mixers.items()}
    plan = expand({"width": 32, "groups": groups}, {"sliding": {"window": 6}}, mixer_files(), causal=classes is None)
    return Stack(plan, 20, readout=readout_of(classes), classes=classes).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    tokens = torch.randint(20, (3, 24))
    return Batch(tokens, tokens.roll(-1, 1), {"document": torch.arange(3)[:, None].expand(-1, 24)})


def measured(stack, *batches):
    found = Attention(share=1.0).measure(stack, Given(batches, vocabulary=20), batches, CPU, "test")
    return {row.name: row for row in found}


def uniform(*mixers):
    """Make queries of zero, which attend to all that they see alike."""
    for mixer in mixers:
        torch.nn.init.zeros_(mixer.projections.query.weight)


def test_attention_that_knows_nothing_is_spread_over_all_that_is_seen(batch):
    stack = stack_of(early="full", deep="sliding", other="mamba2")
    uniform(stack.layers[0].mixer, stack.layers[1].mixer)
    rows = measured(stack, batch)
    for group, seen in (("early", range(1, 25)), ("deep", [min(n, 6) for n in range(1, 25)])):
        distance, entropy, first = (
            rows[f"test/attention_{what}/group/{group}"].value for what in ("distance", "entropy", "first")
        )
        assert distance == pytest.approx(sum((n - 1) / 2 for n in seen) / 24)
        assert entropy == pytest.approx(sum(math.log(n) for n in seen) / 24)
        assert first == pytest.approx(sum(1 / n for n in (seen if group == "early" else range(1, 7))) / 24)
    assert not any("other" in name or "mamba2" in name for name in rows)
    assert rows["test/attention_entropy/group/deep"].value == rows["test/attention_entropy/mixer/sliding"].value


def test_it_is_the_mean_over_heads_positions_and_the_layers_that_attend(batch):
    stack = stack_of(all="full mamba2 sliding")
    rows = measured(stack, batch)
    assert rows["test/attention_distance/group/all"].value == pytest.approx(
        (rows["test/attention_distance/layer/0"].value + rows["test/attention_distance/layer/2"].value) / 2
    )
    mixer = stack.layers[0].mixer
    q, k, _ = mixer.projections(stack.layers[0].mixer_norm(stack.embedding(batch.inputs)))
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(torch.ones(24, 24, dtype=torch.bool).triu(1), -math.inf)
    weights = scores.softmax(-1).detach()
    assert rows["test/attention_first/layer/0"].value == pytest.approx(weights[..., 0].mean().item())
    distance = (torch.arange(24)[:, None] - torch.arange(24)) * weights
    assert rows["test/attention_distance/layer/0"].value == pytest.approx(distance.sum(-1).mean().item())
    assert rows["test/attention_entropy/layer/0"].value == pytest.approx(-weights.xlogy(weights).sum(-1).mean().item())
    found = rows["test/attention_entropy/layer/0"]
    assert (found.n, found.tokens, found.interval) == (3, 72, "bootstrap over documents")


def test_positions_where_nothing_is_predicted_are_not_looked_from(batch):
    stack = stack_of(all="full")
    uniform(stack.layers[0].mixer)
    batch.targets[:, :23] = IGNORED
    rows = measured(stack, batch)
    assert rows["test/attention_distance/group/all"].value == pytest.approx(23 / 2)
    assert rows["test/attention_distance/group/all"].tokens == 3


def test_an_encoder_attends_both_ways_within_its_row(batch):
    stack = stack_of(classes=5, all="full")
    uniform(stack.layers[0].mixer)
    documents = torch.tensor([[0] * 9 + [-1] * 15] * 3)
    rows = measured(stack, Batch(batch.inputs, torch.tensor([0, 1, 2]), {"document": torch.arange(3)}, documents))
    assert rows["test/attention_entropy/group/all"].value == pytest.approx(math.log(9))
    assert rows["test/attention_first/group/all"].value == pytest.approx(1 / 9)
    assert rows["test/attention_distance/group/all"].value == pytest.approx(80 / 27)


def test_the_parts_of_a_parallel_layer_are_told_apart(batch):
    stack = stack_of(all=[{"parallel": ["full", "sliding", "short_conv"]}])
    uniform(stack.layers[0].mixer.parts["full"], stack.layers[0].mixer.parts["sliding"])
    rows = measured(stack, batch)
    name = "test/attention_distance/part/{} in full+sliding+short_conv"
    full, window = (rows[name.format(part)].value for part in ("full", "sliding"))
    assert full == pytest.approx(23 / 4)
    assert rows["test/attention_distance/group/all"].value == pytest.approx((full + window) / 2)
    assert name.format("short_conv") not in rows


def test_a_stack_without_attention_has_none_of_it_and_is_left_as_it_was(batch):
    assert measured(stack_of(all="short_conv"), batch) == {}
    stack = stack_of(all="full").train()
    measured(stack, batch)
    assert stack.training
    assert not any(module._forward_hooks for module in stack.modules())
