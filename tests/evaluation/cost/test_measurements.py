"""What a stack costs, counted by hand."""

import pytest

from hybridlab.evaluation.cost.layers import layer_costs, plan_rows
from hybridlab.evaluation.cost.measurements import cost_measurements
from tests.evaluation.examples import CPU, by_name, complete, stack_of

GROUPS = {"early": {"mixer": "gated_conv"}, "middle": {"mixer": "mamba2 full"}, "deep": {"mixer": "linear"}}
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 1}


@pytest.fixture
def stack():
    return stack_of(GROUPS, 257, width=64, channel=CHANNEL)


def test_the_cost_of_a_stack_is_measured_on_its_layers(stack):
    length, width = 48, 64
    convolution, *_ = layer_costs(stack, length)
    channel = 2 * length * 3 * width * 64
    projections = 2 * length * (3 * width * width + width * width)
    assert convolution.flops - channel - projections == pytest.approx(2 * length * width * 3, rel=0.1)
    full = layer_costs(stack, length)[2]
    assert full.state_bytes == 2 * 4 * length * width
    assert layer_costs(stack, 2 * length)[2].state_bytes == 2 * full.state_bytes
    assert layer_costs(stack, 2 * length)[1].state_bytes == layer_costs(stack, length)[1].state_bytes

    found = by_name(complete(cost_measurements(stack, plan_rows(stack, length), length, CPU)))
    measured = {name: each.value for name, each in found.items()}
    by_group = [measured[f"parameters/group/{group}"] for group in GROUPS]
    assert sum(by_group) + stack.embedding.weight.numel() + width == measured["parameters"]
    assert measured["flops"] == sum(measured[f"flops/group/{group}"] for group in GROUPS)
    assert measured["milliseconds/mixer/full"] > 0
