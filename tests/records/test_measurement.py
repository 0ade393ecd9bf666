import pytest

from hybridlab.records.measurement import Measurement


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"measure": "nll", "split": "test"}, "test/nll"),
        (
            {"measure": "knockout", "split": "test", "grouping": "group", "group": "early", "part": "mixer"},
            "test/knockout/group/early/mixer",
        ),
        ({"measure": "nll", "split": "test", "slice": "position", "bucket": "256-511"}, "test/nll/position/256-511"),
        ({"measure": "lens", "split": "test", "grouping": "mixer", "group": "mamba2"}, "test/lens/mixer/mamba2"),
        ({"measure": "nll", "split": "train", "step": 7, "tokens": 4096}, "train/nll"),
    ],
)
def test_a_number_has_one_name(fields, name):
    assert Measurement(value=1.0, unit="nats/token", **fields).name == name


@pytest.mark.parametrize(
    "wrong",
    [
        {"measure": ""},
        {"split": "dev"},
        {"group": "early"},
        {"grouping": "group"},
        {"bucket": "0-63"},
        {"part": "head"},
        {"interval": "guess"},
    ],
)
def test_what_we_would_write_by_mistake_is_asserted(wrong):
    with pytest.raises(AssertionError):
        Measurement(**{"measure": "nll", "value": 1.0, "unit": "nats/token", **wrong})


def test_whole_numbers_become_floats():
    assert isinstance(Measurement(measure="parameters", value=3, unit="1").value, float)
