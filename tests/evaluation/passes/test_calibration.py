"""Means and affine maps from the training split, on layers whose maps are known."""

import pytest
import torch

from hybridlab.evaluation.passes.calibration import calibrate
from hybridlab.tasks.batch import IGNORED, Batch
from tests.evaluation.examples import CPU, Given, evaluate, stack_of

VOCABULARY, LENGTH = 30, 24


class Affine(torch.nn.Module):
    """A layer that maps the residual stream of each position."""

    def __init__(self, width):
        super().__init__()
        self.map = torch.nn.Linear(width, width)
        self.mixer, self.channel = torch.nn.Identity(), None

    def forward(self, x, packing=None):
        return self.map(x)


def task_of(documents=None, classes=None):
    tokens, targets = torch.randint(VOCABULARY, (2, 16, LENGTH), generator=torch.Generator().manual_seed(2))
    targets[:, -4:] = IGNORED
    unit = torch.arange(16)
    slices = {"document": unit[:, None].expand(16, LENGTH), "position": torch.arange(LENGTH).expand(16, LENGTH)}
    if classes is not None:
        targets, slices = unit % classes, {"document": unit, "position": 0 * unit}
    return Given([Batch(tokens, targets, slices, documents)], vocabulary=VOCABULARY, classes=classes)


def test_a_mean_output_is_over_all_positions_but_padding():
    stack, task = stack_of({"all": {"layers": 2, "mixer": "full"}}, VOCABULARY), task_of()
    with torch.inference_mode():
        means = calibrate(stack, task, [], 1, CPU).means
        first, _ = stack.layers
        out = first.mixer(first.mixer_norm(stack.embedding(task.batches[0].inputs)))
    expected = out[:, :-4].double().mean((0, 1))
    torch.testing.assert_close(means[first.mixer], expected)


@pytest.mark.parametrize("classes", [None, 3])
def test_the_tuned_lens_reads_what_an_affine_layer_makes_of_the_stream(classes):
    """Many tokens for the width, and a small ridge: close, where the plain lens is far off."""
    task = task_of(classes=classes)
    stack = stack_of({"early": {"mixer": "linear"}, "deep": {"mixer": "linear"}}, VOCABULARY, width=8, classes=classes)
    stack.layers[1] = Affine(8)
    measured = evaluate(stack, task, "lens", "tuned_lens", groupings=["group", "layer"])
    values = {name: each.value for name, each in measured.items()}
    intact, plain, tuned = (
        values[name] for name in ("test/nll", "test/lens/group/early", "test/tuned_lens/group/early")
    )
    assert abs(plain - intact) > 0.02
    assert abs(tuned - intact) < 0.1 * abs(plain - intact)
    assert values["test/tuned_lens/layer/0"] == tuned


def test_packed_training_sequences_give_means_too():
    documents = torch.arange(LENGTH).ge(9).long().expand(16, LENGTH)
    stack = stack_of({"all": {"mixer": "full"}}, VOCABULARY)
    with torch.inference_mode():
        calibration = calibrate(stack, task_of(documents), [0], 1, CPU)
    assert calibration.means[stack.layers[0].mixer].isfinite().all()
    assert (calibration.maps[0] == 0).all()
