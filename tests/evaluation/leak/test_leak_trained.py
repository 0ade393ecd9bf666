"""Leaks that training opens."""

import pytest
import torch
from torch import nn

from hybridlab.evaluation.leak import LeakError, check_plan, check_trained
from tests.evaluation.leak.planted import Honest
from tests.evaluation.leak.stacks import stack_of
from tests.records.reading import read_all


class OpensAboveHalf(Honest):
    """A gate that passes nothing until its weight is above a half."""

    def __init__(self, *, width=16):
        super().__init__(width=width)
        self.gate = nn.Parameter(torch.zeros(()))

    def leak(self, x):
        return torch.relu(self.gate - 0.5) * x.mean(1, keepdim=True).expand_as(x)


class OpensForBatches(OpensAboveHalf):
    def leak(self, x):
        return torch.relu(self.gate - 0.5) * (x.mean(0, keepdim=True) - x)


@pytest.mark.parametrize(
    ("planted", "what"), [(OpensAboveHalf, "sees the future"), (OpensForBatches, "other sequences of its batch")]
)
def test_the_gate_sees_what_training_has_opened(planted, what, tmp_path):
    plan, stack = stack_of(tmp_path, planted, planted)
    assert check_plan(plan, stack, 40)
    assert check_trained(plan, stack, 40)
    with torch.no_grad():
        stack.layers[1].mixer.gate += 1
    with pytest.raises(LeakError, match=f"^leak: after training, mixer `{planted.__name__}` .*{what}"):
        check_trained(plan, stack, 40)


def test_what_passed_before_training_is_not_believed_after_it(tmp_path):
    plan, stack = stack_of(tmp_path, OpensAboveHalf)
    check_plan(plan, stack, 40)
    with torch.no_grad():
        stack.layers[0].mixer.gate += 1
    with pytest.raises(LeakError):
        check_trained(plan, stack, 40)


class OpensByTraining(Honest):
    """Closed where it starts and for the noise of the gate; a few steps open it."""

    def __init__(self, *, width=16):
        super().__init__(width=width)
        self.gate = nn.Parameter(torch.zeros(width))

    def leak(self, x):
        opened = (self.gate != 0).all() & (self.gate.abs() < 0.03).all()
        return self.gate * x + opened * x.mean(1, keepdim=True)

    def extend(self, x, state):
        y, after = super().extend(x, state)
        return y + self.gate * x, after


def test_a_run_whose_training_opens_a_leak_fails_without_test_numbers(hybridlab, tiny, tmp_path):
    folder = tmp_path / "mine" / "mixers"
    folder.mkdir(parents=True)
    (folder / "opens.yaml").write_text(f"_target_: {OpensByTraining.__module__}.OpensByTraining\n")
    outcome = hybridlab(
        "train",
        *tiny,
        "hydra.searchpath=[file://mine]",
        "logger=none",
        "trainer.max_steps=4",
        "stack.groups.deep.mixer.name=opens",
        "~stack.groups.deep.mixer.heads",
    )
    assert outcome.code == 1
    assert "leak gate: whole stack: no leak" in outcome.out
    (record,) = read_all(tmp_path)
    assert record.status == "failed"
    assert record.reason.startswith("leak: after training, mixer `opens` (mixers.opens) sees the future")
    assert not [row for row in record.measurements if row.split == "test"]
