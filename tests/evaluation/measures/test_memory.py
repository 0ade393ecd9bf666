"""Effective memory on mixers whose reach is known, for decoders and encoders, rows of several documents and parallel parts."""

import pytest
import torch
import torch.nn.functional as F

from hybridlab.config import mixer_files
from hybridlab.evaluation.measures.memory import Memory
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import Given, readout_of

CPU = torch.device("cpu")
SMALL = {"short_conv": {"conv_size": 4}, "sliding": {"window": 6}, "mamba2": {"head_width": 16, "state": 8}}


def stack_of(*mixers, classes=None):
    torch.manual_seed(0)
    groups = {mixer if isinstance(mixer, str) else "parallel": {"mixer": [mixer]} for mixer in mixers}
    plan = expand({"width": 32, "groups": groups}, SMALL, mixer_files(), causal=classes is None)
    return Stack(plan, 20, readout=readout_of(classes), classes=classes).double()


def batches(length=40, rows=3, classes=None, documents=None):
    torch.manual_seed(1)
    tokens = torch.randint(20, (rows, length))
    targets = torch.randint(20 if classes is None else classes, (rows, length) if classes is None else (rows,))
    units = torch.arange(rows) if classes is not None else torch.arange(rows)[:, None].expand(-1, length)
    return [Batch(tokens, targets, {"document": units}, documents)]


def measured(stack, batches, **settings):
    found = Memory(share=1.0, **settings).measure(stack, Given(batches, vocabulary=20), batches, CPU, "test")
    return {row.name: row for row in found}


def influence(rows, of):
    prefix = f"test/influence/{of}/lag/"
    return {name.removeprefix(prefix): row.value for name, row in rows.items() if name.startswith(prefix)}


def test_each_mixer_has_the_reach_that_it_is_built_with():
    rows = measured(stack_of("short_conv", "identity", "sliding", "full", "mamba2"), batches())
    taps, window = influence(rows, "group/short_conv"), influence(rows, "mixer/sliding")
    assert {lag for lag, share in taps.items() if share > 0} == {"0", "1", "2-3"}
    assert {lag for lag, share in window.items() if share > 0} == {"0", "1", "2-3", "4-7"}
    assert rows["test/memory_tokens/group/short_conv"].value <= 3
    assert rows["test/memory_tokens/group/sliding"].value <= 5
    for far in ("full", "mamba2"):
        assert min(influence(rows, f"group/{far}").values()) > 0
        assert sum(influence(rows, f"group/{far}").values()) == pytest.approx(1)
    assert not any("identity" in name for name in rows)
    assert rows["test/memory_tokens/group/full"].value == rows["test/memory_tokens/layer/3"].value


def test_influence_is_the_norm_of_the_gradient_of_the_loss():
    stack, (batch,) = stack_of("full"), batches(length=9, rows=1)
    batch.targets[:, :8] = IGNORED
    rows = measured(stack, [batch])
    x = stack.embedding(batch.inputs)
    normed = stack.layers[0].mixer_norm(x).detach().requires_grad_()
    loss = F.cross_entropy(stack.read(x.detach() + stack.layers[0].mixer(normed))[:, -1], batch.targets[:, -1])
    norms = torch.autograd.grad(loss, normed)[0][0].norm(dim=-1).flip(0)
    shares = (norms / norms.sum()).tolist()
    found = influence(rows, "group/full")
    assert list(found.values()) == pytest.approx([shares[0], shares[1], sum(shares[2:4]), sum(shares[4:8]), shares[8]])
    expected = sum(lag * share for lag, share in enumerate(shares))
    assert rows["test/memory_tokens/group/full"].value == pytest.approx(expected)
    assert rows["test/memory_tokens/group/full"].tokens == 1


def test_of_attention_that_reads_all_alike_it_is_the_mean_distance():
    """Queries of zero: no gradient comes through keys and queries, and that through each value is its weight."""
    stack = stack_of("full", "sliding")
    for layer in stack.layers:
        torch.nn.init.zeros_(layer.mixer.projections.query.weight)
    rows = measured(stack, batches(), positions=40)
    for group, seen in (("full", range(1, 41)), ("sliding", [min(n, 6) for n in range(1, 41)])):
        assert rows[f"test/memory_tokens/group/{group}"].value == pytest.approx(sum((n - 1) / 2 for n in seen) / 40)


def test_an_encoder_looks_both_ways():
    rows = measured(stack_of("short_conv", "full", classes=5), batches(classes=5))
    assert {lag for lag, share in influence(rows, "group/short_conv").items() if share > 0} == {"0", "1", "2-3"}
    assert min(influence(rows, "group/full").values()) > 0


def test_documents_of_one_row_do_not_reach_one_another_and_padding_is_not_looked_from():
    documents = torch.tensor([[0] * 3 + [1] * 4 + [-1] * 33])
    rows = measured(stack_of("full"), batches(rows=1, documents=documents))
    assert set(influence(rows, "group/full")) == {"0", "1", "2-3"}


def test_the_parts_of_a_parallel_layer_are_told_apart():
    rows = measured(stack_of({"parallel": ["full", "sliding"]}), batches())
    window, whole = (influence(rows, name) for name in ("part/sliding in full+sliding", "mixer/full+sliding"))
    assert {lag for lag, share in window.items() if share > 0} == {"0", "1", "2-3", "4-7"}
    assert min(whole.values()) > 0
    assert min(influence(rows, "part/full in full+sliding").values()) > 0


def test_the_stack_is_left_as_it_was():
    stack = stack_of("full").train()
    measured(stack, batches())
    assert stack.training
    assert not any(module._forward_hooks for module in stack.modules())
    assert all(parameter.grad is None for parameter in stack.parameters())
