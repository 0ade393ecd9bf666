"""A row told from the vector of its last position alone."""

import pytest
import torch
import torch.nn.functional as F

from hybridlab.config import mixer_files
from hybridlab.ops.attention.sinusoidal_encoding import sinusoidal_encoding
from hybridlab.stack.measure import parameters
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.stack.readout import Readout
from hybridlab.tasks.synthetic.compression import Compression
from hybridlab.training.module import StackModule
from hybridlab.training.optimiser import AdamWCosine

WIDTH, VOCABULARY = 32, 11


def stack_of(mixer="full short_conv", *, width=WIDTH, readout=Readout.LAST_POSITION):
    torch.manual_seed(0)
    plan = expand({"width": width, "groups": {"all": {"mixer": mixer}}}, {}, mixer_files())
    return Stack(plan, VOCABULARY, readout=readout)


def stream(length=9):
    return torch.randn(2, length, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_only_the_last_position_is_read():
    stack, x = stack_of().double(), stream()
    others = torch.cat([torch.randn_like(x[:, :-1]), x[:, -1:]], dim=1)
    torch.testing.assert_close(stack.read(others), stack.read(x), rtol=0, atol=0)
    assert (
        (stack.read(x.index_add(1, torch.tensor([8]), torch.ones(2, 1, WIDTH).double())) - stack.read(x)) != 0
    ).all()


def test_every_logit_depends_on_the_whole_row_by_way_of_causal_layers():
    stack, tokens = stack_of().double(), torch.arange(9)[None]
    other = tokens.clone()
    other[0, 0] = 10
    before, after = stack.hidden(tokens), stack.hidden(other)
    assert ((stack(other) - stack(tokens)).abs().amax(-1) > 1e-9).all()
    other[0, 0], other[0, 8] = 0, 10
    torch.testing.assert_close(stack.hidden(other)[:, :8], before[:, :8], rtol=0, atol=1e-12)
    assert not torch.equal(after[:, 8], before[:, 8])


def test_the_perceptron_is_that_of_the_published_autoencoder():
    stack, x = stack_of().double(), stream()
    first, second = (layer for layer in stack.pooling.perceptron if isinstance(layer, torch.nn.Linear))  # type: ignore[union-attr]
    for row, found in zip(x, stack.read(x), strict=True):
        for place, logits in enumerate(found):
            h = F.rms_norm(row[-1] + sinusoidal_encoding(9, WIDTH)[place], (WIDTH,))
            for layer in (first, second):
                h = F.rms_norm(F.gelu(layer.weight @ h + layer.bias), (WIDTH,))
            torch.testing.assert_close(logits, stack.head.weight @ h, rtol=1e-7, atol=1e-7)


def test_the_perceptron_and_the_head_of_its_own_are_counted_trained_and_drawn_like_other_maps():
    stack, plain = stack_of(), stack_of(readout=Readout.EVERY_POSITION)
    assert stack.head.weight is not stack.embedding.weight
    perceptron = 2 * (WIDTH * WIDTH + WIDTH) + 2 * WIDTH
    assert parameters(stack) == parameters(plain) + perceptron + VOCABULARY * WIDTH
    stack(torch.randint(VOCABULARY, (2, 7))).logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in stack.parameters())
    assert float(stack.head.weight.detach().std()) == pytest.approx(WIDTH**-0.5, rel=0.1)


def test_gradients_are_those_of_finite_differences():
    stack, x = stack_of().double(), stream(4).requires_grad_()
    assert torch.autograd.gradcheck(stack.read, x)
    stack.read(x).sum().backward()
    assert x.grad is not None
    assert not x.grad[:, :-1].any()


def test_a_row_is_not_packed_nor_told_before_it_is_over():
    stack, tokens = stack_of(), torch.randint(VOCABULARY, (1, 6))
    with pytest.raises(AssertionError, match="without padding"):
        stack(tokens, torch.zeros_like(tokens))
    with pytest.raises(AssertionError, match="cannot be read token by token"):
        stack.extend(tokens, stack.initial_state(1))


def test_a_short_string_is_learned():
    """Three tokens of ten kinds, in rows that were not trained on."""
    task = Compression(seed=0, vocabulary=VOCABULARY, length=4, batch=64, examples=None, held_out=20)
    stack = stack_of("short_conv full", width=64)
    module = StackModule(stack, AdamWCosine(lr=5e-3), 200)
    optimiser, schedule = module.configure_optimizers().values()
    for step in range(200):
        loss = module.training_nll(module.on_before_batch_transfer(task.train_batch(step), 0)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule["scheduler"].step()
    (test,) = task.evaluation_batches("test", window=4, stride=4, limit=None, batch=20)
    assert (stack(test.inputs).argmax(-1) == test.targets)[:, :-1].float().mean() > 0.95
