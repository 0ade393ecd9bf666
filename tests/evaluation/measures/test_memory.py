"""Effective memory of mixers of known reach: decoders, encoders, packed documents, parts."""

import pytest
import torch
import torch.nn.functional as F

from hybridlab.config import mixer_files
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import Given, by_name, named, readout_of, take

SMALL = {"short_conv": {"conv_size": 4}, "sliding": {"window": 6}, "mamba2": {"head_width": 16, "state": 8}}


def stack_of(*mixers, classes=None):
    torch.manual_seed(0)
    groups = {mixer if isinstance(mixer, str) else "parallel": {"mixer": [mixer]} for mixer in mixers}
    plan = expand({"width": 32, "groups": groups}, SMALL, mixer_files(), causal=classes is None)
    return Stack(plan, 20, readout=readout_of(classes), classes=classes).double()


def batches(length=40, sequences=3, classes=None, documents=None):
    torch.manual_seed(1)
    tokens = torch.randint(20, (sequences, length))
    targets = torch.randint(
        20 if classes is None else classes, (sequences, length) if classes is None else (sequences,)
    )
    units = torch.arange(sequences) if classes is not None else torch.arange(sequences)[:, None].expand(-1, length)
    return [Batch(tokens, targets, {"document": units}, documents)]


def taken(stack, batches, **settings):
    measures = [named(name, share=1.0, **settings) for name in ("memory_tokens", "influence")]
    return by_name(take(measures, stack, Given(batches, vocabulary=20), batches))


def influence(measured, of):
    prefix = f"test/influence/{of}/lag/"
    return {name.removeprefix(prefix): each.value for name, each in measured.items() if name.startswith(prefix)}


def test_each_mixer_has_the_reach_that_it_is_built_with():
    measured = taken(stack_of("short_conv", "identity", "sliding", "full", "mamba2"), batches())
    near, window = influence(measured, "group/short_conv"), influence(measured, "mixer/sliding")
    assert {lag for lag, share in near.items() if share > 0} == {"0", "1", "2-3"}
    assert {lag for lag, share in window.items() if share > 0} == {"0", "1", "2-3", "4-7"}
    assert measured["test/memory_tokens/group/short_conv"].value <= 3
    assert measured["test/memory_tokens/group/sliding"].value <= 5
    for far in ("full", "mamba2"):
        assert min(influence(measured, f"group/{far}").values()) > 0
        assert sum(influence(measured, f"group/{far}").values()) == pytest.approx(1)
    assert not any("identity" in name for name in measured)
    assert measured["test/memory_tokens/group/full"].value == measured["test/memory_tokens/layer/3"].value


def test_influence_is_the_norm_of_the_gradient_of_the_loss():
    stack, (batch,) = stack_of("full"), batches(length=9, sequences=1)
    batch.targets[:, :8] = IGNORED
    measured = taken(stack, [batch])
    x = stack.embedding(batch.inputs)
    normed = stack.layers[0].mixer_norm(x).detach().requires_grad_()
    loss = F.cross_entropy(stack.read(x.detach() + stack.layers[0].mixer(normed))[:, -1], batch.targets[:, -1])
    norms = torch.autograd.grad(loss, normed)[0][0].norm(dim=-1).flip(0)
    shares = (norms / norms.sum()).tolist()
    found = influence(measured, "group/full")
    assert list(found.values()) == pytest.approx([shares[0], shares[1], sum(shares[2:4]), sum(shares[4:8]), shares[8]])
    expected = sum(lag * share for lag, share in enumerate(shares))
    assert measured["test/memory_tokens/group/full"].value == pytest.approx(expected)
    assert measured["test/memory_tokens/group/full"].tokens == 1


def test_the_memory_of_even_attention_is_its_mean_distance():
    """With queries of zero, no gradient passes keys; through a value it is the weight."""
    stack = stack_of("full", "sliding")
    for layer in stack.layers:
        torch.nn.init.zeros_(layer.mixer.projections.query.weight)
    measured = taken(stack, batches(), positions=40)
    for group, seen in (("full", range(1, 41)), ("sliding", [min(n, 6) for n in range(1, 41)])):
        assert measured[f"test/memory_tokens/group/{group}"].value == pytest.approx(sum((n - 1) / 2 for n in seen) / 40)


def test_an_encoder_looks_both_ways():
    measured = taken(stack_of("short_conv", "full", classes=5), batches(classes=5))
    assert {lag for lag, share in influence(measured, "group/short_conv").items() if share > 0} == {"0", "1", "2-3"}
    assert min(influence(measured, "group/full").values()) > 0


def test_packed_documents_do_not_reach_one_another_and_padding_has_no_loss():
    documents = torch.tensor([[0] * 3 + [1] * 4 + [-1] * 33])
    measured = taken(stack_of("full"), batches(sequences=1, documents=documents))
    assert set(influence(measured, "group/full")) == {"0", "1", "2-3"}


def test_each_part_of_a_parallel_layer_has_its_own_numbers():
    measured = taken(stack_of({"parallel": ["full", "sliding"]}), batches())
    window, whole = (influence(measured, name) for name in ("part/sliding in full+sliding", "mixer/full+sliding"))
    assert {lag for lag, share in window.items() if share > 0} == {"0", "1", "2-3", "4-7"}
    assert min(whole.values()) > 0
    assert min(influence(measured, "part/full in full+sliding").values()) > 0


def test_the_stack_is_left_as_it_was():
    stack = stack_of("full").train()
    taken(stack, batches())
    assert stack.training
    assert not any(module._forward_hooks for module in stack.modules())
    assert all(parameter.grad is None for parameter in stack.parameters())
