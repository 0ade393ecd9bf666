"""The whole stack: packed documents, encoders, what layers share, mistakes in a user's module."""

import re

import pytest
import torch

from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak import Kind, check_plan, stack_leak
from hybridlab.stack.packing import Packing
from tests.evaluation.leak.planted import Honest, without_decoding
from tests.evaluation.leak.stacks import stack_of

blackboard = []


class WritesOnABoard(Honest):
    """A module-level variable tells the next layer of this call what comes."""

    def forward(self, x):
        blackboard[:] = [x.mean(1, keepdim=True)]
        return super().forward(x)


class ReadsTheBoard(Honest):
    def leak(self, x):
        board = blackboard[0] if blackboard and len(blackboard[0]) == len(x) else torch.zeros_like(x[:, :1])
        return 0 * x + board.to(x.dtype).detach()


class BatchMates(Honest):
    def leak(self, x):
        return x.mean(0, keepdim=True) - x


class Encoder(Honest):
    causal = False

    def forward(self, x):
        return super().forward(x) + x.mean(1, keepdim=True)


class EncoderOfTheBatch(Encoder):
    def forward(self, x):
        return super().forward(x) + 0.1 * x.mean((0, 1), keepdim=True)


class Fails(Honest):
    def forward(self, x):
        raise RuntimeError("no luck\nat all")


class FailsForOddLengths(Honest):
    def forward(self, x):
        return super().forward(x.view(len(x), x.shape[1] // 2, 2, self.width).flatten(1, 2))


class FailsToStart(Honest):
    def initial_state(self, batch, like):
        return like.no_such_thing


class FailsToExtend(Honest):
    def extend(self, x, state):
        return x @ x, state


class WrongShape(Honest):
    def forward(self, x):
        return super().forward(x)[:, :-1]


class NaN(Honest):
    def leak(self, x):
        return (x - 100).log()


class OnlyFloat32(Honest):
    """A kernel that refuses float64."""

    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("expected scalar type Float but found Double")
        return super().forward(x)


class OnlyFloat32AndLeaks(OnlyFloat32):
    def leak(self, x):
        return x.mean(1, keepdim=True).expand_as(x)


class PositionTable(Honest):
    """Learned positions for as many tokens as the run has."""

    def __init__(self, *, width=16):
        super().__init__(width=width)
        self.positions = torch.nn.Parameter(torch.zeros(40, width))

    def forward(self, x):
        return super().forward(x) + self.positions[torch.arange(x.shape[1])]

    initial_state, extend = without_decoding(Honest).initial_state, without_decoding(Honest).extend


def test_what_layers_share_is_seen(tmp_path):
    plan, stack = stack_of(tmp_path, WritesOnABoard, ReadsTheBoard)
    blackboard.clear()
    with pytest.raises(ConfigError, match="mixer `ReadsTheBoard`"):
        check_plan(plan, stack, 40)


def test_a_part_of_a_parallel_layer_is_named(tmp_path):
    plan, stack = stack_of(tmp_path, Honest, BatchMates, parallel=True)
    with pytest.raises(ConfigError, match=r"mixer `BatchMates` in `Honest.BatchMates` .*other sequences of its batch"):
        check_plan(plan, stack, 40)


def test_documents_of_a_packed_sequence_do_not_see_one_another(tmp_path, monkeypatch):
    _, stack = stack_of(tmp_path, Honest, Honest)
    assert stack_leak(stack, [40], packed=True) is None
    monkeypatch.setattr(Packing, "mix", lambda self, mixer, x: mixer(x))
    leak = stack_leak(stack, [40], packed=True)
    assert leak is not None
    assert leak.kind is Kind.DOCUMENTS


def test_a_packed_run_is_probed_as_packed(tmp_path):
    plan, stack = stack_of(tmp_path, Honest)
    assert check_plan(plan, stack, 40, packed=True)


def test_an_encoder_may_see_its_sequence_and_no_other(tmp_path):
    plan, stack = stack_of(tmp_path, Encoder, causal=False)
    lines = check_plan(plan, stack, 40)
    assert lines[0].startswith("not needed: ")
    assert lines[1].startswith("whole stack: no leak")
    plan, stack = stack_of(tmp_path, EncoderOfTheBatch, causal=False)
    with pytest.raises(ConfigError, match=r"mixer `EncoderOfTheBatch` .* reads other sequences of its batch"):
        check_plan(plan, stack, 40)


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (Fails, "RuntimeError: no luck"),
        (FailsForOddLengths, "RuntimeError: shape "),
        (FailsToStart, "AttributeError: "),
        (FailsToExtend, "RuntimeError: "),
        (WrongShape, r"WrongShape.forward returns \[1, 39, 16\] for inputs of \[1, 40, 16\]"),
    ],
)
def test_an_exception_is_one_line_with_its_place(planted, message, tmp_path):
    plan, stack = stack_of(tmp_path, planted)
    with pytest.raises(ConfigError, match=message) as caught:
        check_plan(plan, stack, 40)
    assert "\n" not in str(caught.value)
    assert planted is WrongShape or re.search(r"\(\S*test_leak_stack.py:\d+\)$", str(caught.value))


def test_nan_is_said_as_such(tmp_path):
    plan, stack = stack_of(tmp_path, NaN)
    with pytest.raises(ConfigError, match=r"mixer `NaN` \(mixers.NaN\) puts out NaN or infinity"):
        check_plan(plan, stack, 40)


def test_what_cannot_run_in_float64_is_probed_as_it_runs(tmp_path):
    plan, stack = stack_of(tmp_path, OnlyFloat32)
    assert check_plan(plan, stack, 40)
    plan, stack = stack_of(tmp_path, OnlyFloat32AndLeaks)
    with pytest.raises(ConfigError, match=r"sees the future.*float32 on the CPU"):
        check_plan(plan, stack, 40)


def test_no_longer_sequence_is_probed_than_the_run_has_if_the_mixer_takes_none(tmp_path):
    plan, stack = stack_of(tmp_path, PositionTable)
    assert check_plan(plan, stack, 40)
