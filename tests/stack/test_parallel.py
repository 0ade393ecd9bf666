"""Parallel layers: one layer with two mixers on one input, whose parts can be ablated
separately."""

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.stack.interventions import zero_ablated
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand, in_normal_form

HYBRID = {"parallel": ["full", {"name": "mamba2", "head_width": 16}]}


def plan_of(mixer, **stack):
    return expand({"width": 32, "groups": {"all": {"layers": 2, "mixer": mixer}}, **stack}, {}, mixer_files())


def stack_of(mixer):
    torch.manual_seed(0)
    return Stack(plan_of(mixer), 50).double()


def test_parallel_mixers_are_one_layer_with_parts():
    plan = plan_of([HYBRID, "linear"])
    assert [layer.mixer for layer in plan.layers] == ["full+mamba2", "linear"]
    assert plan.groupings()["mixer", "full+mamba2"] == (0,)
    assert plan.part_groupings() == {"full in full+mamba2": ((0,), "full"), "mamba2 in full+mamba2": ((0,), "mamba2")}
    assert plan.layers[0].parts[1].settings["head_width"] == 16


@pytest.mark.parametrize("combine", ["mean", "gate"])
def test_output_is_the_weighted_sum_of_the_normed_outputs_of_the_parts(combine):
    layer = stack_of({**HYBRID, "combine": combine}).layers[0].mixer
    torch.nn.init.normal_(layer.scales)
    x = torch.randn(2, 9, 32, dtype=torch.float64)
    normed = [
        y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt() * scale
        for y, scale in zip((layer.parts["full"](x), layer.parts["mamba2"](x)), layer.scales, strict=True)
    ]
    weights = [0.5, 0.5] if combine == "mean" else layer.gate(x).softmax(-1)[..., None].unbind(-2)
    expected = sum(weight * y for weight, y in zip(weights, normed, strict=True)) @ layer.out.weight.mT
    torch.testing.assert_close(layer(x), expected)


def test_chunks_give_the_output_of_the_whole_sequence():
    stack, tokens = stack_of(HYBRID), torch.arange(20)[None]
    state, logits = stack.initial_state(1), []
    for piece in tokens.split([7, 1, 12], dim=1):
        piece_logits, state = stack.extend(piece, state)
        logits.append(piece_logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), stack(tokens))


def test_a_part_is_ablated_without_the_other():
    stack, x = stack_of(HYBRID), torch.randn(1, 9, 32, dtype=torch.float64)
    mixer = stack.layers[0].mixer
    with zero_ablated(stack, [0], "mixer", only="full"):
        y = mixer(x)
    alone = mixer.parts["mamba2"](x)
    normed = alone / (alone.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(y, normed / 2 @ mixer.out.weight.mT)
    assert not torch.equal(mixer(x), y)


def test_two_parts_of_one_kind_get_distinct_names():
    (layer, _) = plan_of({"parallel": [{"name": "sliding", "window": w} for w in (4, 8)]}).layers
    assert layer.part_names() == ["sliding", "sliding_2"]


def test_the_normal_form_holds_the_parts():
    stack = {"width": 32, "groups": {"all": {"layers": 2, "mixer": HYBRID}}}
    (group,) = in_normal_form(stack, expand(stack, {}, mixer_files()))["groups"].values()
    assert group["mixer"] == "full+mamba2"
    assert group["settings"]["full+mamba2"]["combine"] == "mean"
    assert group["settings"]["full+mamba2"]["parts"]["mamba2"]["head_width"] == 16


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ({"parallel": ["full"]}, r"mixer.parallel=\['full'\]`: must be a list of two or more mixers"),
        ({"parallel": "full"}, "mixer.parallel=full`: must be a list of two or more mixers"),
        ({"parallel": ["full", "mambo2"]}, "mixer.parallel=mambo2`: no such mixer; did you mean `mamba2`"),
        ({**HYBRID, "combine": "sum"}, "mixer.combine=sum`: allowed: gate, mean"),
        ({**HYBRID, "combined": "mean"}, "mixer.combined=mean`: Parallel has no such setting; did you mean `combine`"),
        ({"parallel": ["full", HYBRID]}, "a part must be a mixer, not a parallel layer"),
        ({"parallel": ["full", {"name": "sliding", "window": 0}]}, "mixer.parallel.window=0`: must be a whole number"),
        (
            {"parallel": ["full", "nystrom"]},
            "mixer=full\\+nystrom`: `nystrom` sees the future, and the task is causal; did you mean `nystrom_causal`",
        ),
    ],
)
def test_mistakes_are_refused_with_their_path(mixer, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(mixer)
