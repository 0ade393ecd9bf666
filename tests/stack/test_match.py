"""Matching: stacks come to one size by moving declared free sizes, and it is said which."""

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.stack.match import matched
from hybridlab.stack.measure import forward_flops, parameters, state_after
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand, single_layer

SWIGLU = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 2.667}
LENGTH = 300


def plan_of(mixer, **stack):
    declared = {"width": 128, "groups": {"all": {"layers": 4, "mixer": mixer}}, "channel": SWIGLU, **stack}
    return expand(declared, {}, mixer_files())


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


@pytest.mark.parametrize("what", ["params", "flops"])
@pytest.mark.parametrize("mixer", ["mamba2", "gated_conv", ["mamba2", "full", "linear"], "(sliding gated_conv)x2"])
def test_stacks_agree_within_two_percent(mixer, what):
    reference, (found, lines) = plan_of("full"), match(plan_of(mixer), what)
    assert size(found, what) == pytest.approx(size(reference, what), rel=0.02)
    assert lines[-1].startswith(f"{what} within")


def test_what_was_changed_is_said_and_nothing_else_is_changed():
    plan = plan_of("mamba2")
    found, lines = match(plan, "params")
    old, new = plan.layers[0].settings, found.layers[0].settings
    changed = {key for key in old if old[key] != new[key]}
    assert changed
    assert changed <= {"expansion", "state"}
    assert all(f"mamba2.{key}: {old[key]} → {new[key]}" in lines for key in changed)
    assert found.width == plan.width


def test_state_is_matched_by_a_window():
    found, _ = match(plan_of({"name": "sliding", "window": 100}, channel=None), "state")
    assert size(found, "state") == pytest.approx(size(plan_of("full"), "state"), rel=0.02)
    assert found.layers[0].settings["window"] >= LENGTH * 0.98


def test_a_stack_that_cannot_be_matched_is_refused_with_how_far_it_came():
    with pytest.raises(ConfigError, match=r"`stack.match=state`: the nearest that the free sizes \(none\) allow is -9"):
        match(plan_of("gated_conv"), "state")
    with pytest.raises(ConfigError, match=r"`stack.match=parms`: one of params, flops, state is needed"):
        match(plan_of("gated_conv"), "parms")


def test_a_matched_run_says_what_it_changed_and_records_it(hybridlab, tiny, tmp_path):
    from hybridlab.records.store import read_all

    outcome = hybridlab("train", *tiny, "stack.match=params")
    assert outcome.code == 0, outcome.err
    assert "match: channel.expansion: 1 →" in outcome.out
    assert "match: params within" in outcome.out
    (record,) = read_all(tmp_path / "runs")
    assert record.config["stack"]["match"] == "params"
    assert record.config["stack"]["channel"]["expansion"] != 1
