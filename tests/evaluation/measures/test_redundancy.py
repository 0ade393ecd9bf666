"""Block influence and similarity where the answer is known."""

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import Batch
from tests.evaluation.examples import Given, by_name, named, take


def stack_of(**mixers):
    torch.manual_seed(0)
    groups = {group: {"mixer": mixer} for group, mixer in mixers.items()}
    return Stack(expand({"width": 32, "groups": groups}, {}, mixer_files()), 20).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    tokens = torch.randint(20, (4, 50))
    return Batch(tokens, tokens.roll(-1, 1), {"document": torch.arange(4)[:, None].expand(-1, 50)})


def taken(stack, *batches):
    measures = [named(name, share=1.0) for name in ("block_influence", "similarity")]
    return by_name(take(measures, stack, Given(batches, vocabulary=20), batches))


def test_a_layer_that_adds_nothing_has_no_influence_and_others_that_of_the_cosine(batch):
    stack = stack_of(early="full linear", middle="identity", deep="short_conv")
    measured = taken(stack, batch)
    assert measured["test/block_influence/layer/2"].value == pytest.approx(0, abs=1e-12)
    assert measured["test/block_influence/group/middle"].value == pytest.approx(0, abs=1e-12)
    before = stack.embedding(batch.inputs).detach()
    after = stack.layers[1](stack.layers[0](before)).detach()
    expected = 1 - (before * after).sum(-1) / before.norm(dim=-1) / after.norm(dim=-1)
    found = measured["test/block_influence/group/early"]
    assert found.value == pytest.approx(expected.mean().item())
    assert found.low is not None
    assert found.low < found.value
    assert (found.n, found.tokens) == (4, 200)


def test_groups_that_add_the_same_are_similar_and_one_that_adds_nothing_resembles_none(batch):
    stack = stack_of(early="short_conv", middle="identity", deep="short_conv", last="full")
    stack.layers[2].load_state_dict(stack.layers[0].state_dict())
    with torch.no_grad():
        stack.layers[0].mixer.out.weight.mul_(1e-9)  # so that what comes in front of both is the same
    measured = taken(stack, batch)
    assert measured["test/similarity/pair/early & deep"].value == pytest.approx(1)
    assert measured["test/similarity/pair/early & last"].value < 0.99
    assert measured["test/similarity/pair/early & last"].interval == ""
    assert not any("middle" in name for name in measured if "similarity" in name)


def test_the_stack_is_left_as_it_was(batch):
    stack = stack_of(all="full").train()
    taken(stack, batch)
    assert stack.training
