"""Matching: changing free sizes gives stacks of equal size, and each change is printed."""

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.stack.layer import build_mixer
from hybridlab.stack.match import matched, what_and_reference
from hybridlab.stack.measure import forward_flops, parameters, state_after
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand, single_layer

SWIGLU = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 2.667}
LENGTH = 300


def plan_of(mixer, *, causal=True, **stack):
    declared = {"width": 128, "groups": {"all": {"layers": 4, "mixer": mixer}}, "channel": SWIGLU, **stack}
    return expand(declared, {}, mixer_files(), causal=causal)


def match(plan, what):
    return matched(plan, what, LENGTH, single_layer("full", plan.width, {}, mixer_files()))


def size(plan, what):
    with torch.device("meta"):
        layers = Stack(plan, 10).layers
    if what == "params":
        return sum(map(parameters, layers))
    if what == "flops":
        return sum(forward_flops(layer, plan.width, LENGTH) for layer in layers)
    return sum(state_after(layer.mixer, plan.width, LENGTH) for layer in layers)


BIDIRECTIONAL = ("linformer", "nystrom")


@pytest.mark.parametrize("what", ["params", "flops"])
@pytest.mark.parametrize(
    "mixer",
    [
        *(pytest.param(name, marks=pytest.mark.slow) if name == "nsa" else name for name in mixer_files()),
        ["mamba2", "full", "linear"],
        "(sliding gated_conv)x2",
        {"parallel": ["full", "mamba2"], "combine": "gate"},
    ],
    ids=str,
)
def test_stacks_agree_within_two_percent(mixer, what):
    causal = mixer not in BIDIRECTIONAL
    reference, (found, lines) = plan_of("full", causal=causal), match(plan_of(mixer, causal=causal), what)
    assert size(found, what) == pytest.approx(size(reference, what), rel=0.02)
    assert lines[-1].startswith(f"{what} within")


def test_the_parts_of_a_parallel_layer_are_fitted_separately():
    plan = plan_of({"parallel": ["sliding", "mamba2"]}, channel=None)
    found, lines = match(plan, "state")
    assert size(found, "state") == pytest.approx(size(plan_of("full"), "state"), rel=0.02)
    assert lines[0].startswith("sliding+mamba2.sliding.window: 256 →")
    assert plan.layers[0].parts[0].settings["window"] == 256
    assert [layer.index for layer in found.layers] == [0, 1, 2, 3]


def test_mixers_with_free_sizes_make_up_for_those_without():
    found, _ = match(plan_of(["gated_conv", "mamba2"]), "state")
    assert size(found, "state") == pytest.approx(size(plan_of("full"), "state"), rel=0.02)


def test_the_reference_may_be_another_mixer():
    names = mixer_files()
    assert what_and_reference("state", names) == ("state", "full")
    assert what_and_reference({"state": "linear"}, names) == ("state", "linear")
    reference = single_layer("linear", 128, {}, names)
    found, lines = matched(plan_of("based"), "state", LENGTH, reference)
    assert size(found, "state") == pytest.approx(size(plan_of("linear"), "state"), rel=0.02)
    assert lines[-1].endswith("of the same stack of `linear`")


@pytest.mark.parametrize(
    ("what", "reference", "message"),
    [
        ("state", "nystrom", "`stack.match.state=nystrom`: sees the future, and the task is causal"),
        ("params", "linformer", "`stack.match.params=linformer`: sees the future, and the task is causal"),
        ("state", "identity", "`stack.match.state=identity`: has none, so nothing can be matched to it"),
    ],
)
def test_a_reference_without_the_size_is_refused(what, reference, message):
    with pytest.raises(ConfigError, match=message):
        matched(plan_of("gla"), what, LENGTH, single_layer(reference, 128, {}, mixer_files()))


def test_a_reference_is_one_name():
    with pytest.raises(ConfigError, match=r"`stack.match.params=\['full'\]`: no such mixer"):
        what_and_reference({"params": ["full"]}, mixer_files())


def test_a_size_that_does_not_change_the_cost_stays():
    found, lines = match(plan_of({"name": "sliding", "kv_heads": 1}), "params")
    assert found.layers == plan_of({"name": "sliding", "kv_heads": 1}).layers
    assert lines[0].startswith("channel.expansion: 2.667 →")


def test_no_size_grows_beyond_the_point_where_it_has_an_effect():
    found, _ = match(plan_of(["gated_conv", "sliding", "mamba2"], channel=None), "state")
    assert found.layers[1].settings["window"] <= 2 * LENGTH


def test_bidirectional_mixers_have_no_state_to_match():
    with pytest.raises(ConfigError, match=r"`stack.match=state`: bidirectional mixers keep no state"):
        match(plan_of("nystrom", causal=False), "state")


def test_each_change_is_printed_and_nothing_else_changes():
    plan = plan_of("mamba2")
    found, lines = match(plan, "params")
    old, new = plan.layers[0].settings, found.layers[0].settings
    changed = {key for key in old if old[key] != new[key]}
    assert changed
    assert changed <= {"expand", "state"}
    assert all(f"mamba2.{key}: {old[key]} → {new[key]}" in lines for key in changed)
    assert found.width == plan.width


def test_state_is_matched_by_a_window():
    found, _ = match(plan_of({"name": "sliding", "window": 100}, channel=None), "state")
    assert size(found, "state") == pytest.approx(size(plan_of("full"), "state"), rel=0.02)
    assert found.layers[0].settings["window"] >= LENGTH * 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    "length", [256, *(pytest.param(length, marks=pytest.mark.slow) for length in (128, 300, 1024))]
)
def test_two_sizes_are_fitted_together_where_one_after_the_other_stays_off(length):
    full = single_layer("full", 256, {}, mixer_files())
    found, _ = matched(plan_of("gated_delta", width=256), "state", length, full)
    with torch.device("meta"):
        cost, wanted = (state_after(build_mixer(layer, 256, True), 256, length) for layer in (found.layers[0], full))
    assert cost == pytest.approx(wanted, rel=0.01)


def test_a_null_size_is_fitted_from_the_value_that_the_mixer_chooses():
    found, lines = match(plan_of("performer"), "state")
    assert size(found, "state") == pytest.approx(size(plan_of("full"), "state"), rel=0.01)
    assert lines[0] == f"performer.features: null → {found.layers[0].settings['features']}"
    unmoved, _ = match(plan_of("performer"), "params")
    assert unmoved.layers == plan_of("performer").layers


def test_null_stays_null_where_nothing_changed_it():
    found, lines = match(plan_of({"parallel": ["sliding", "performer"]}, channel=None), "state")
    sizes = [part.settings for part in found.layers[0].parts]
    assert sizes[0]["window"] != 256
    assert sizes[1]["features"] is None
    assert len(lines) == 2


def test_a_stack_that_cannot_be_matched_is_refused_with_the_difference():
    with pytest.raises(ConfigError, match=r"`stack.match=state`: the free sizes \(none\) come no nearer than -9"):
        match(plan_of("gated_conv"), "state")
    with pytest.raises(ConfigError, match=r"`stack.match=parms`: must be one of params, flops, state"):
        what_and_reference("parms", mixer_files())
    with pytest.raises(ConfigError, match=r"`stack.match.state=gal`: no such mixer; did you mean `gla`"):
        what_and_reference({"state": "gal"}, mixer_files())


def test_a_matched_run_prints_and_records_what_it_changed(hybridlab, tiny, tmp_path):
    from tests.records.reading import read_all

    outcome = hybridlab("train", *tiny, "stack.match=params")
    assert outcome.code == 0, outcome.err
    assert "match: mamba2.expand: 2 →" in outcome.out
    assert "match: params within" in outcome.out
    (record,) = read_all(tmp_path / "runs")
    assert record.config["stack"]["match"] == "params"
    assert record.derived["stack.groups.middle.settings.mamba2.expand"] != 2
    assert record.config["stack"]["groups"]["middle"]["settings"]["mamba2"]["expand"] == 2  # as declared
