"""Attention by group against weights written out, and where the answer is known."""

import math

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import Given, by_name, named, readout_of, take

MEASURES = ("attention_distance", "attention_entropy", "attention_first")


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


def taken(stack, *batches):
    measures = [named(name, share=1.0) for name in MEASURES]
    return by_name(take(measures, stack, Given(batches, vocabulary=20), batches))


def make_even(*mixers):
    """Make queries of zero, which attend evenly to all that they see."""
    for mixer in mixers:
        torch.nn.init.zeros_(mixer.projections.query.weight)


def test_queries_of_zero_attend_evenly_to_all_that_they_see(batch):
    stack = stack_of(early="full", deep="sliding", other="mamba2")
    make_even(stack.layers[0].mixer, stack.layers[1].mixer)
    measured = taken(stack, batch)
    for group, seen in (("early", range(1, 25)), ("deep", [min(n, 6) for n in range(1, 25)])):
        distance, entropy, first = (
            measured[f"test/attention_{what}/group/{group}"].value for what in ("distance", "entropy", "first")
        )
        assert distance == pytest.approx(sum((n - 1) / 2 for n in seen) / 24)
        assert entropy == pytest.approx(sum(math.log(n) for n in seen) / 24)
        assert first == pytest.approx(sum(1 / n for n in (seen if group == "early" else range(1, 7))) / 24)
    assert not any("other" in name or "mamba2" in name for name in measured)
    assert measured["test/attention_entropy/group/deep"].value == measured["test/attention_entropy/mixer/sliding"].value


def test_it_is_the_mean_over_heads_positions_and_the_layers_that_attend(batch):
    stack = stack_of(all="full mamba2 sliding")
    measured = taken(stack, batch)
    assert measured["test/attention_distance/group/all"].value == pytest.approx(
        (measured["test/attention_distance/layer/0"].value + measured["test/attention_distance/layer/2"].value) / 2
    )
    mixer = stack.layers[0].mixer
    q, k, _ = mixer.projections(stack.layers[0].mixer_norm(stack.embedding(batch.inputs)))
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(torch.ones(24, 24, dtype=torch.bool).triu(1), -math.inf)
    weights = scores.softmax(-1).detach()
    assert measured["test/attention_first/layer/0"].value == pytest.approx(weights[..., 0].mean().item())
    distance = (torch.arange(24)[:, None] - torch.arange(24)) * weights
    assert measured["test/attention_distance/layer/0"].value == pytest.approx(distance.sum(-1).mean().item())
    assert measured["test/attention_entropy/layer/0"].value == pytest.approx(
        -weights.xlogy(weights).sum(-1).mean().item()
    )
    found = measured["test/attention_entropy/layer/0"]
    assert (found.n, found.tokens, found.interval) == (3, 72, "bootstrap over documents")


def test_positions_where_nothing_is_predicted_are_not_looked_from(batch):
    stack = stack_of(all="full")
    make_even(stack.layers[0].mixer)
    batch.targets[:, :23] = IGNORED
    measured = taken(stack, batch)
    assert measured["test/attention_distance/group/all"].value == pytest.approx(23 / 2)
    assert measured["test/attention_distance/group/all"].tokens == 3


def test_an_encoder_attends_both_ways_within_its_document(batch):
    stack = stack_of(classes=5, all="full")
    make_even(stack.layers[0].mixer)
    documents = torch.tensor([[0] * 9 + [-1] * 15] * 3)
    measured = taken(stack, Batch(batch.inputs, torch.tensor([0, 1, 2]), {"document": torch.arange(3)}, documents))
    assert measured["test/attention_entropy/group/all"].value == pytest.approx(math.log(9))
    assert measured["test/attention_first/group/all"].value == pytest.approx(1 / 9)
    assert measured["test/attention_distance/group/all"].value == pytest.approx(80 / 27)


def test_each_part_of_a_parallel_layer_has_its_own_numbers(batch):
    stack = stack_of(all=[{"parallel": ["full", "sliding", "short_conv"]}])
    make_even(stack.layers[0].mixer.parts["full"], stack.layers[0].mixer.parts["sliding"])
    measured = taken(stack, batch)
    name = "test/attention_distance/part/{} in full+sliding+short_conv"
    full, window = (measured[name.format(part)].value for part in ("full", "sliding"))
    assert full == pytest.approx(23 / 4)
    assert measured["test/attention_distance/group/all"].value == pytest.approx((full + window) / 2)
    assert name.format("short_conv") not in measured


def test_a_stack_without_attention_has_no_numbers_and_a_stack_is_left_as_it_was(batch):
    assert taken(stack_of(all="short_conv"), batch) == {}
    stack = stack_of(all="full").train()
    taken(stack, batch)
    assert stack.training
    assert not any(module._forward_hooks for module in stack.modules())
