"""What is measured of a stack that predicts a whole sequence from its last position."""

import pytest
import torch
import torch.nn.functional as F

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak import check_plan, stack_leak
from hybridlab.evaluation.passes.calibration import calibrate
from hybridlab.evaluation.passes.context import Context
from hybridlab.evaluation.passes.samples import draw_samples
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.stack.readout import Readout
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import CPU, Given, by_name, complete, evaluate, evaluation_of, named, stack_of, take

VOCABULARY = 11
GROUPS = {"early": {"mixer": "short_conv"}, "deep": {"mixer": "full"}}


@pytest.fixture
def batch():
    """Two in three tokens of each sequence are targets, and not the last."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(VOCABULARY, (4, 12), generator=generator)
    asked = torch.rand(4, 12, generator=generator) < 0.6
    asked[:, 0], asked[:, -1] = True, False
    document = torch.arange(4)[:, None].expand(4, 12)
    return Batch(
        tokens, tokens.where(asked, IGNORED), {"document": document, "position": torch.arange(12).expand(4, 12)}
    )


def task_of(batch):
    return Given([batch], vocabulary=VOCABULARY, measures=("accuracy", "nll"), readout=Readout.LAST_POSITION)


def test_it_is_scored_where_it_is_supervised_and_a_lens_reads_earlier_streams_alike(batch):
    stack = stack_of(GROUPS, VOCABULARY, readout=Readout.LAST_POSITION)
    measured = evaluate(stack, task_of(batch), "knockout", "lens")
    with torch.no_grad():
        *_, early, last = stack.residuals(batch.inputs)
        logits, of_early = stack(batch.inputs), stack.read(early)
    scored = batch.targets != IGNORED
    expected, of_lens = (F.cross_entropy(each[scored], batch.targets[scored]) for each in (logits, of_early))
    assert torch.equal(stack.read(last), logits)
    assert measured["test/nll"].value == pytest.approx(float(expected), rel=1e-5)
    assert measured["test/accuracy"].value == pytest.approx(
        float((logits.argmax(-1) == batch.targets)[scored].float().mean())
    )
    assert measured["test/nll"].tokens == int(scored.sum())
    assert measured["test/lens/group/early"].value == pytest.approx(float(of_lens), rel=1e-5)
    assert measured["test/lens/group/deep"].value == measured["test/nll"].value


def test_everything_is_looked_at_from_the_last_position(batch):
    stack = stack_of(GROUPS, VOCABULARY, readout=Readout.LAST_POSITION)
    context = Context(
        stack=stack,
        task=task_of(batch),
        batches=[batch],
        device=CPU,
        split="test",
        slices=[],
        groupings=[],
        budget=None,
        batch=4,
    )
    drawn = draw_samples(context, 1.0)
    assert [(each.positions.tolist(), each.some_positions(8).tolist(), each.unit) for each in drawn] == [
        ([11], [11], unit) for unit in range(4)
    ]


def test_memory_is_the_gradient_of_the_loss_of_the_sequence(batch):
    stack, task = (
        stack_of({"all": {"mixer": "full"}}, VOCABULARY, readout=Readout.LAST_POSITION).double(),
        task_of(batch),
    )
    measured = by_name(take([named("memory_tokens", share=1.0)], stack, task, [batch]))
    lags = torch.arange(11, -1, -1, dtype=torch.float64)
    expected = []
    for tokens, targets in zip(batch.inputs, batch.targets, strict=True):
        x = stack.embedding(tokens[None])
        normed = stack.layers[0].mixer_norm(x).detach().requires_grad_()
        logits = stack.read(x.detach() + stack.layers[0].mixer(normed))[0]
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORED)
        norms = torch.autograd.grad(loss, normed)[0][0].norm(dim=-1)
        expected.append(float((norms / norms.sum()) @ lags))
    assert measured["test/memory_tokens/group/all"].value == pytest.approx(sum(expected) / 4)


def test_calibration_maps_the_last_position_and_averages_over_all(batch):
    stack = stack_of(GROUPS, VOCABULARY, readout=Readout.LAST_POSITION)
    with torch.no_grad():
        found = calibrate(stack, task_of(batch), [1], 1, CPU)
        mixer = stack.layers[0].mixer
        expected = mixer(stack.layers[0].mixer_norm(stack.embedding(batch.inputs))).mean((0, 1))
        x = stack.hidden(batch.inputs)
        torch.testing.assert_close(found.mapped(1, x), x)
    torch.testing.assert_close(found.means[mixer].float(), expected)


def test_it_is_not_streamed(batch):
    assert not named("streamed_nll").applies_to(task_of(batch))
    stack = stack_of(GROUPS, VOCABULARY, readout=Readout.LAST_POSITION)
    found = complete(evaluation_of("streamed_nll").measure(stack, task_of(batch), CPU))
    assert {each.measure for each in found} == {"nll"}


@pytest.mark.parametrize("planted", ["SequenceMaximum", "BidirectionalConvolution"])
def test_a_planted_leak_is_found_although_the_whole_sequence_is_read_by_design(planted, tmp_path):
    assert stack_leak(stack_of(GROUPS, VOCABULARY, readout=Readout.LAST_POSITION), (7, 33)) is None
    (tmp_path / "planted.yaml").write_text(f"_target_: tests.evaluation.test_leak.{planted}\n")
    files = {**mixer_files(), "planted": tmp_path / "planted.yaml"}
    plan = expand({"width": 64, "groups": {"all": {"mixer": "full planted"}}}, {}, files)
    stack = Stack(plan, VOCABULARY, readout=Readout.LAST_POSITION)
    assert stack_leak(stack, (7, 33)) is not None
    with pytest.raises(ConfigError, match="mixer `planted`"):
        check_plan(plan, stack, task_length=33)
