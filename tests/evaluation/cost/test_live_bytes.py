"""The bytes that a pass holds, counted by hand; the meta device counts what a CPU counts."""

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.evaluation.cost.live_bytes import LiveBytes
from hybridlab.stack.layer import build_mixer
from hybridlab.stack.plan import single_layer

NUM = 1024
TENSOR = 4 * NUM


def test_results_count_until_nothing_refers_to_them():
    x = torch.zeros(NUM)
    with LiveBytes([x]) as held:
        y = x + 1
        view = y[1:]
        del y
        assert (held.bytes, held.peak) == (2 * TENSOR, 2 * TENSOR)
        del view
        x.mul_(2)
        (x + 1).exp().add(1)
        assert (held.bytes, held.peak, held.largest) == (TENSOR, 3 * TENSOR, TENSOR)


def test_what_is_kept_for_the_gradient_counts_until_then():
    x = torch.zeros(NUM, requires_grad=True)
    with LiveBytes([x]) as held:
        y = x.exp().sin().sum()  # both keep what they are given or give
        assert held.bytes == 2 * TENSOR + 4
        y.backward()
    assert held.bytes == 2 * TENSOR + 4  # x, its gradient and y


@pytest.mark.parametrize("name", ["gla", "mamba", "mamba2", "rglru"])
def test_the_meta_device_counts_what_a_cpu_counts(name):
    layer = single_layer(name, 32, {}, mixer_files())
    found = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            mixer, x = build_mixer(layer, 32, causal=True), torch.zeros(1, 300, 32, requires_grad=True)
            with LiveBytes([x, *mixer.parameters(), *mixer.buffers()]) as held:
                y = mixer(x)
                y.backward(torch.ones_like(y))
        found.append((held.peak, held.largest))
    assert found[0] == found[1]
