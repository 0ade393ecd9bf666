"""The output of a changed stack, against the same output computed directly."""

import pytest
import torch

from hybridlab.stack.interventions import blocked, mean_ablated
from hybridlab.stack.packing import Packing
from tests.evaluation.examples import stack_of

LENGTH = 50


def stack_and_stream(mixer, causal=True):
    stack = stack_of({"all": {"mixer": mixer}}, 20, causal=causal).double()
    return stack, torch.randn(2, LENGTH, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("mixer", ["full", "sliding", "linear"])
@pytest.mark.parametrize("block", [7, 16, 25, 64])
def test_each_position_sees_its_block_and_the_one_before_and_if_bidirectional_the_one_after(mixer, block, causal):
    stack, x = stack_and_stream(mixer, causal)
    module = stack.layers[0].mixer
    with blocked(stack, [0], block):
        found = module(x)
    for position in range(LENGTH):
        own = position - position % block
        first, end = max(0, own - block), min(LENGTH, own + block + block * (not causal))
        torch.testing.assert_close(found[:, position], module(x[:, first:end])[:, position - first])


def test_the_documents_of_packed_sequences_are_blocked_separately():
    stack, x = stack_and_stream("full")
    module = stack.layers[0].mixer
    documents = torch.arange(LENGTH).ge(20).long().expand(2, LENGTH)
    with blocked(stack, [0], 4):
        packed = Packing.of(documents).mix(module, x)
        apart = torch.cat([module(x[:, :20]), module(x[:, 20:])], dim=1)
    torch.testing.assert_close(packed, apart)


def test_a_part_of_a_parallel_mixer_is_changed_and_the_other_is_not():
    stack, x = stack_and_stream({"parallel": ["full", "linear"]})
    parts = stack.layers[0].mixer.parts
    intact, other = parts["full"](x), parts["linear"](x)
    with blocked(stack, [0], 8, only="full"):
        assert not torch.allclose(parts["full"](x), intact)
        assert torch.equal(parts["linear"](x), other)
    with mean_ablated(stack, [0], "mixer", {parts["full"]: torch.arange(32.0)}, only="full"):
        assert torch.equal(parts["full"](x), torch.arange(32.0, dtype=torch.float64).expand_as(x))
        assert torch.equal(parts["linear"](x), other)
    assert torch.equal(parts["full"](x), intact)
