"""Block influence and CKA where the answer is known."""

import numpy as np
import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.evaluation.measures.redundancy import Redundancy
from hybridlab.evaluation.passes.cka import LinearCKA
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import Batch
from tests.evaluation.examples import Given

CPU = torch.device("cpu")


def stack_of(**mixers):
    torch.manual_seed(0)
    groups = {group: {"mixer": mixer} for group, mixer in mixers.items()}
    return Stack(expand({"width": 32, "groups": groups}, {}, mixer_files()), 20).double()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    tokens = torch.randint(20, (4, 50))
    return Batch(tokens, tokens.roll(-1, 1), {"document": torch.arange(4)[:, None].expand(-1, 50)})


def measured(stack, *batches):
    found = Redundancy(share=1.0).measure(stack, Given(batches, vocabulary=20), batches, CPU, "test")
    return {row.name: row for row in found}


def test_a_layer_that_adds_nothing_has_no_influence_and_others_that_of_the_cosine(batch):
    stack = stack_of(early="full linear", middle="identity", deep="short_conv")
    rows = measured(stack, batch)
    assert rows["test/block_influence/layer/2"].value == pytest.approx(0, abs=1e-12)
    assert rows["test/block_influence/group/middle"].value == pytest.approx(0, abs=1e-12)
    before = stack.embedding(batch.inputs).detach()
    after = stack.layers[1](stack.layers[0](before)).detach()
    expected = 1 - (before * after).sum(-1) / before.norm(dim=-1) / after.norm(dim=-1)
    found = rows["test/block_influence/group/early"]
    assert found.value == pytest.approx(expected.mean().item())
    assert found.low is not None
    assert found.low < found.value
    assert (found.n, found.tokens) == (4, 200)


def test_groups_that_add_the_same_are_alike_and_one_that_adds_nothing_is_like_none(batch):
    stack = stack_of(early="short_conv", middle="identity", deep="short_conv", last="full")
    stack.layers[2].load_state_dict(stack.layers[0].state_dict())
    with torch.no_grad():
        stack.layers[0].mixer.out.weight.mul_(1e-9)  # so that what comes in front of both is the same
    rows = measured(stack, batch)
    assert rows["test/similarity/pair/early & deep"].value == pytest.approx(1)
    assert rows["test/similarity/pair/early & last"].value < 0.99
    assert rows["test/similarity/pair/early & last"].interval == ""
    assert not any("middle" in name for name in rows if "similarity" in name)


def test_cka_is_that_of_the_kernels_of_all_samples_whatever_the_portions():
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(90, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    y = 3 + x @ torch.randn(8, 5, generator=generator, dtype=torch.float64) + noise[:, :5]
    cka = LinearCKA()
    for some in torch.arange(90).split(32):
        cka.add({"x": x[some], "y": y[some]})
    (pair, value), *_ = cka.pairs()
    centre = np.eye(90) - 1 / 90
    first, second = (centre @ (a @ a.T).numpy() @ centre for a in (x, y))
    assert pair == ("x", "y")
    assert value == pytest.approx(np.sum(first * second) / np.linalg.norm(first) / np.linalg.norm(second))


def test_cka_knows_no_rotation_scale_or_offset_and_finds_nothing_in_what_is_unrelated():
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(5000, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    cka = LinearCKA()
    cka.add({"x": x, "turned": 7 * x @ turn + 2, "other": other})
    found = dict(cka.pairs())
    assert found["x", "turned"] == pytest.approx(1)
    assert found["x", "other"] < 0.01


def test_the_stack_is_left_as_it_was(batch):
    stack = stack_of(all="full").train()
    measured(stack, batch)
    assert stack.training
