"""The loss of a training step is computed at supervised positions only, with the same result."""

import pytest
import torch
import torch.nn.functional as F

from hybridlab.config import mixer_files
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.stack.readout import Readout
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.training.module import StackModule
from hybridlab.training.optimiser import AdamWCosine

VOCABULARY = 13


def module_of(*, classes=None, readout=Readout.EVERY_POSITION):
    torch.manual_seed(0)
    groups = {"all": {"layers": 2, "mixer": ["full", "short_conv"]}}
    plan = expand({"width": 32, "groups": groups}, {}, mixer_files(), causal=classes is None)
    return StackModule(Stack(plan, VOCABULARY, readout=readout, classes=classes).double(), AdamWCosine(lr=1e-3), 10)


def batch_of(share, documents=None):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCABULARY, (3, 21), generator=generator)
    supervised = torch.rand(3, 20, generator=generator) < share
    return Batch(tokens[:, :-1], torch.where(supervised, tokens[:, 1:], IGNORED), {}, documents)


def step(module, batch):
    return module.training_nll(module.on_before_batch_transfer(batch, 0)).mean()


def naive(module, batch):
    logits = module.stack(batch.inputs, batch.documents)
    return F.cross_entropy(logits.flatten(0, -2), batch.targets.flatten(), ignore_index=IGNORED)


@pytest.mark.parametrize("readout", [Readout.EVERY_POSITION, Readout.LAST_POSITION])
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_loss_and_gradients_are_those_of_all_logits(share, readout):
    module, batch = module_of(readout=readout), batch_of(share)
    found, expected = step(module, batch), naive(module, batch)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    parameters = list(module.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), rtol=1e-11, atol=1e-14
    )


def test_the_same_holds_for_packed_sequences():
    module, batch = module_of(), batch_of(0.5, torch.arange(20).expand(3, 20) // 7)
    torch.testing.assert_close(step(module, batch), naive(module, batch), rtol=1e-13, atol=0)


def test_the_loss_of_an_encoder_is_that_of_each_sequences_class():
    module, batch = (
        module_of(classes=4, readout=Readout.SEQUENCE_MEAN),
        batch_of(1.0)._replace(targets=torch.tensor([3, 0, 2])),
    )
    found, expected = step(module, batch), naive(module, batch)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    parameters = list(module.parameters())
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters))


def test_the_head_reads_supervised_positions_only():
    module, batch = module_of(), batch_of(0.3)
    seen = []
    module.stack.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    step(module, batch)
    assert seen == [(int((batch.targets != IGNORED).sum()), 32)]


def test_nothing_is_gathered_where_every_position_is_supervised():
    module = module_of()
    assert module.on_before_batch_transfer(batch_of(1.0), 0)[1] is None
