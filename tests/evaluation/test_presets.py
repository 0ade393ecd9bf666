"""Every preset of conf/evaluation/ measures; bad settings of measures are refused."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from hybridlab.build import build
from hybridlab.config import conf_dir, measure_files, register, resolve
from hybridlab.errors import ConfigError
from hybridlab.evaluation.measures.build import task_measures
from hybridlab.tasks.text.documents import Documents
from tests.evaluation.examples import complete, evaluation_of, named, settings_of, stack_of

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
    evaluation = build(preset(name, "task.length=16"), "evaluation", of_task=task_measures(task))
    stack = stack_of({"early": {"mixer": "gated_conv"}, "deep": {"mixer": "full"}}, 257)
    measurements = complete(evaluation.measure(stack, task, torch.device("cpu")))
    found = {each.measure for each in measurements}
    assert "nll" in found
    assert (found >= INSIGHTS) == (name == "full")
    assert ("streamed_nll" in found) == (name == "long")
    assert len({each.name for each in measurements}) == len(measurements)
    summary = evaluation.summary(measurements, task)
    assert set(summary["measures"]) == found
    assert set(summary["measures"]) == {"nll", "bits_per_byte", "perplexity", *evaluation.measures}
    assert summary["window"] == evaluation.window


def test_long_windows_follow_the_length_of_training():
    long = preset("long", "task.length=48")
    assert (long["window"], long["stride"]) == (8 * 48, 4 * 48)
    assert long["measures"]["streamed_nll"]["cache"] == 8 * 48
    assert preset("long", "evaluation.window=100", "evaluation.stride=50")["measures"]["streamed_nll"]["cache"] == 100


@pytest.mark.parametrize("preset_name", ["full", "quick", "long"])
def test_a_preset_names_measures_with_the_settings_of_their_yaml(preset_name):
    settings = preset(preset_name)
    usual = {name: settings[name] for name in ("split", "window", "stride", "limit", "batch")}
    for name, node in settings["measures"].items():
        assert node == settings_of(measure_files()[name], **usual)


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        ({"influence": 3}, "^measures.influence=3: must be a `_target_` and its settings"),
        ({"mine": {"share": 1.0}}, "`evaluation.measures.mine`: no `_target_`"),
        (
            {"influence": {"share": 0.0}},
            "`evaluation.measures.influence.share=0.0`: must be a number above 0 and at most 1",
        ),
        ({"influence": {"shares": 0.5}}, "`evaluation.measures.influence.shares=0.5`: .* did you mean `share`"),
        (
            {"attention_first": {"positions": 0}},
            "`evaluation.measures.attention_first.positions=0`: must be a whole number of at least 1",
        ),
        (
            {"similarity": {"share": 2.0}},
            "`evaluation.measures.similarity.share=2.0`: must be a number above 0 and at most 1",
        ),
    ],
)
def test_bad_settings_of_measures_are_refused(measures, message):
    ((name, settings),) = measures.items()
    known = isinstance(settings, dict) and name != "mine"
    target = {"_target_": settings_of(measure_files()[name])["_target_"]} if known else {}
    with pytest.raises(ConfigError, match=message):
        evaluation_of(measures={name: {**target, **settings} if isinstance(settings, dict) else settings})


def test_a_measure_is_taken_once():
    again = {"again": settings_of(measure_files()["knockout"])}
    with pytest.raises(ConfigError, match=r"^measures\.again: `knockout` is measured by measures.knockout already"):
        evaluation_of("knockout", measures=again)


def test_a_measure_of_the_task_has_the_settings_of_the_configuration(task):
    chosen = evaluation_of("nll", "perplexity", task=task)
    assert [measure.name for measure in chosen.measures_of(task)] == ["bits_per_byte", "nll", "perplexity"]
    assert [measure for measure in chosen.measures_of(task) if measure in chosen.built.values()] == list(
        chosen.built.values()
    )


def test_a_task_is_judged_by_measures_that_are_named_and_apply(task):
    task.measures = ("bits_per_bit",)
    with pytest.raises(ConfigError, match=r"^Documents\.measures=bits_per_bit: did you mean `bits_per_byte`"):
        task_measures(task)
    task.measures, task.bytes_of_token = ("bits_per_byte",), None
    with pytest.raises(ConfigError, match="`bits_per_byte` does not apply to it"):
        task_measures(task)
    assert named("influence", share=0.5).share == 0.5
