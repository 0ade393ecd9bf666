"""A step that accumulates the gradients of several batches is one step on all their tokens."""

import lightning
import numpy as np
import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.training.curve import Curve
from hybridlab.training.deadline import WholeSteps
from hybridlab.training.module import StackModule
from hybridlab.training.optimiser import AdamWCosine
from hybridlab.training.stream import BatchList, BatchStream
from tests.records.reading import read_all

VOCABULARY, LENGTH = 11, 16


class Uneven:
    """Sequences by number, with very different numbers of supervised tokens; some have none."""

    def __init__(self, batch):
        self.batch = batch

    def train_batch(self, number):
        first = number * self.batch
        sequences = [self.sequence(each) for each in range(first, first + self.batch)]
        inputs, targets = (torch.stack(each) for each in zip(*sequences, strict=True))
        return Batch(inputs, targets, {})

    @staticmethod
    def sequence(number):
        draw = np.random.default_rng(number)
        tokens = torch.from_numpy(draw.integers(VOCABULARY, size=LENGTH + 1))
        supervised = torch.arange(LENGTH) < (0, 1, LENGTH, 5)[number % 4]
        return tokens[:-1], torch.where(supervised, tokens[1:], IGNORED)


def train(tmp_path, batch, parts, steps=3, interval=1.0, prepared=torch.nn.Module.double, **more):
    """Return the curve and the weights after some steps of `parts` batches."""
    groups = {"all": {"layers": 2, "mixer": ["full", "short_conv"]}}
    plan = expand({"width": 16, "groups": groups}, {}, mixer_files(), causal=True)
    torch.manual_seed(0)
    stream, curve = BatchStream(Uneven(batch), steps, micro_batches=parts), Curve(batch * parts * LENGTH)
    module = StackModule(prepared(Stack(plan, VOCABULARY)), AdamWCosine(lr=1e-2), steps, supervised=stream.supervised)
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=1,
        accumulate_grad_batches=parts,
        accelerator="cpu",
        gradient_clip_val=0.5,
        log_every_n_steps=1,
        val_check_interval=interval,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[WholeSteps(), curve],
        default_root_dir=tmp_path,
        **more,
    )
    trainer.fit(module, stream, BatchList([Uneven(4).train_batch(100)]))
    return curve.measurements, module.stack.state_dict()


def test_each_token_of_a_step_weighs_the_same_whatever_its_batch(tmp_path):
    (whole, expected), (accumulated, found) = train(tmp_path, 8, 1), train(tmp_path, 2, 4)
    assert [(row.split, row.step, row.tokens) for row in accumulated] == [
        ("train", 1, 128), ("train", 2, 256), ("train", 3, 384), ("validation", 3, 384),
    ]  # fmt: skip
    assert [(row.split, row.step, row.tokens) for row in whole] == [
        (row.split, row.step, row.tokens) for row in accumulated
    ]
    assert [row.value for row in accumulated] == pytest.approx([row.value for row in whole], rel=1e-12)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_validation_waits_for_the_end_of_a_step(tmp_path):
    rows, _ = train(tmp_path, 1, 4, interval=0.5)  # after 6 of 12 batches, in the middle of a step
    assert [(row.split, row.step) for row in rows] == [
        ("train", 1), ("train", 2), ("validation", 2), ("train", 3),
    ]  # fmt: skip


def test_a_batch_without_a_supervised_token_adds_nothing(tmp_path):
    rows, weights = train(tmp_path, 1, 4, steps=1)  # the first of the four has none
    assert all(np.isfinite(row.value) for row in rows)
    assert all(value.isfinite().all() for value in weights.values())


def test_the_stream_counts_the_supervised_tokens_of_a_step_of_all_devices():
    stream = BatchStream(Uneven(2), 2, rank=1, ranks=2, micro_batches=3)
    assert len(stream) == 6
    assert [stream.supervised(step) for step in range(2)] == [0 + 1 + 16 + 5 + 0 + 1, 16 + 5 + 0 + 1 + 16 + 5]
    assert len(list(stream)) == 6


def test_a_run_states_the_tokens_of_its_steps(hybridlab, tiny, tmp_path):
    more = ["trainer.accumulate_grad_batches=3", "trainer.max_steps=4", "evaluation=none", "logger=none"]
    assert hybridlab("train", *tiny, *more).code == 0
    (record,) = read_all(tmp_path / "runs")
    rows = [row for row in record.measurements if row.name == "train/nll"]
    assert [(row.step, row.tokens) for row in rows] == [(2, 2 * 192), (4, 4 * 192)]
    assert (record.training["steps"], record.training["tokens"]) == (4, 4 * 192)
    speed = next(row.value for row in record.measurements if row.measure == "tokens_per_second")
    assert speed == pytest.approx(3 * 192 / record.training["seconds"], rel=0.5)
