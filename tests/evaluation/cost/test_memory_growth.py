"""Where the work of training grows linearly with the length, the memory that it holds does too.

For all mixers, on long sequences, on the meta device.
"""

import pytest
import torch

from hybridlab.catalogue import WIDTH
from hybridlab.config import mixer_files
from hybridlab.evaluation.cost.growth import training_cost
from hybridlab.evaluation.cost.live_bytes import LiveBytes
from hybridlab.mixers.base import Mixer
from hybridlab.stack.layer import build_mixer
from hybridlab.stack.plan import has_causal_form, single_layer

SHORT, LONG = 8192, 32768
LINEAR_WORK = 4.4  # of LONG for SHORT; the next is 4.7
LINEAR, QUADRATIC = 4 * 1.05, 16 * 1.05


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "mamba" else name for name in mixer_files()]
)
def test_memory_grows_linearly_where_work_does(name: str) -> None:
    layer = single_layer(name, WIDTH, {}, mixer_files())
    with torch.device("meta"):
        mixer = build_mixer(layer, WIDTH, has_causal_form(layer))
        short, long = (training_cost(mixer, WIDTH, length) for length in (SHORT, LONG))
    work = max(long.flops / max(short.flops, 1), long.written / short.written)
    memory = peak(mixer, LONG) / peak(mixer, SHORT)
    assert memory <= (LINEAR if work <= LINEAR_WORK else QUADRATIC), f"work grows {work:.2f} times"


def peak(mixer: Mixer, length: int) -> int:
    x = torch.empty(1, length, WIDTH, device="meta", requires_grad=True)
    with LiveBytes([x, *mixer.parameters(), *mixer.buffers()]) as held:
        y = mixer(x)
        y.backward(torch.ones_like(y))
    return held.peak
