"""Leaks that training opens."""

import pytest
import torch
from torch import nn

from hybridlab.evaluation.leak import LeakError, check_plan, check_trained
from tests.evaluation.leak.planted import Honest
from tests.evaluation.leak.stacks import stack_of


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
    with pytest.raises(LeakError, match=f"leak in the trained stack: mixer `{planted.__name__}` .*{what}"):
        check_trained(plan, stack, 40)


def test_what_passed_before_training_is_not_believed_after_it(tmp_path):
    plan, stack = stack_of(tmp_path, OpensAboveHalf)
    check_plan(plan, stack, 40)
    with torch.no_grad():
        stack.layers[0].mixer.gate += 1
    with pytest.raises(LeakError):
        check_trained(plan, stack, 40)
