"""Every preset of conf/evaluation/ measures, and further sets of measures are checked before anything is trained."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from hybridlab.build import build
from hybridlab.config import conf_dir, register, resolve
from hybridlab.errors import ConfigError
from hybridlab.tasks.text.documents import Documents
from tests.evaluation.examples import quality_of, stack_of

PRESETS = [file.stem for file in sorted((conf_dir() / "evaluation").glob("*.yaml"))]
INSIGHTS = {"attention_distance", "influence", "memory_tokens", "block_influence", "similarity"}


def preset(name, *overrides):
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return resolve(compose("config", overrides=[f"evaluation={name}", *overrides]))["evaluation"]


@pytest.fixture
def task(corpus):
    return Documents(seed=0, length=16, batch=2, path=str(corpus), test_share=0.3)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_measures(name, task):
    quality = build(preset(name, "task.length=16"), "evaluation")
    stack = stack_of({"early": {"mixer": "gated_conv"}, "deep": {"mixer": "full"}}, 257)
    rows = quality.measure(stack, task, torch.device("cpu"))
    found = {row.measure for row in rows}
    assert "nll" in found
    assert (found >= INSIGHTS) == (name == "full")
    assert ("streamed_nll" in found) == (name == "long")
    assert len({(row.name, row.block) for row in rows}) == len(rows)
    assert quality.stated(rows, task)["also"] == quality.also
    assert quality.stated(rows, task)["window"] == quality.window


def test_long_windows_follow_the_length_of_training():
    long = preset("long", "task.length=48")
    assert (long["window"], long["stride"]) == (8 * 48, 4 * 48)
    assert long["also"]["streaming"]["cache"] == 8 * 48
    assert preset("long", "evaluation.window=100", "evaluation.stride=50")["also"]["streaming"]["cache"] == 100


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"memory": 3}, "^also.memory=3: a `_target_` and its settings are needed"),
        ({"mine": {"share": 1.0}}, "^`evaluation.also.mine`: no `_target_`"),
        ({"memory": {"share": 0.0}}, "^`evaluation.also.memory.share=0.0`: a share of the rows is needed"),
        ({"memory": {"shares": 0.5}}, "^`evaluation.also.memory.shares=0.5`: .* did you mean `share`"),
        ({"attention": {"positions": 0}}, "^`evaluation.also.attention.positions=0`: a whole number of at least 1"),
        ({"redundancy": {"share": 2.0}}, "^`evaluation.also.redundancy.share=2.0`: "),
    ],
)
def test_bad_settings_of_further_measures_are_refused(further, message):
    ((name, settings),) = further.items()
    target = f"hybridlab.evaluation.{name}.{name.capitalize()}"
    known = isinstance(settings, dict) and name != "mine"
    with pytest.raises((ConfigError, ValueError), match=message):
        quality_of(also={name: {"_target_": target, **settings} if known else settings})
