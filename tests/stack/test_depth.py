"""The stack passes its place among the layers to a mixer that asks for it."""

from hybridlab.config import mixer_files
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand


def norms(groups, mixers=None):
    """Return the scales at which the norms of RWKV-7 start, in the layers that hold one."""
    stack = Stack(expand({"width": 32, "groups": groups}, mixers or {}, mixer_files()), vocabulary=7)
    scales = {
        name: each for name, each in stack.named_parameters() if name.endswith("mixer.norm") or "rwkv7.norm" in name
    }
    return [round(each[0].item(), 6) for name, each in scales.items() if "bias" not in name]


def expected(*shares):
    return [round(share**0.7, 6) for share in shares]


def test_a_layer_counts_from_the_first_of_the_whole_stack():
    groups = {"early": {"layers": 2, "mixer": "full"}, "deep": {"layers": 2, "mixer": "rwkv7"}}
    assert norms(groups) == expected(3 / 4, 1)


def test_parallel_parts_have_the_place_of_their_layer():
    groups = {
        "early": {"layers": 1, "mixer": "short_conv"},
        "deep": {"layers": 1, "mixer": {"parallel": ["full", "rwkv7"]}},
        "last": {"layers": 1, "mixer": "full"},
    }
    assert norms(groups) == expected(2 / 3)


def test_settings_decide_where_they_are_given():
    groups = {"all": {"layers": 2, "mixer": "rwkv7"}}
    assert norms(groups, {"rwkv7": {"layer_index": 0, "layer_count": 8}}) == expected(1 / 8, 1 / 8)
