"""A plan is the declared stack, expanded; a stack that cannot be built is refused in one line."""

import re

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.errors import ConfigError
from hybridlab.mixers.base import Mixer
from hybridlab.stack.plan import expand, in_normal_form

CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 2}


def plan_of(groups, mixers=None, files=None, **stack):
    return expand({"width": 64, "groups": groups, **stack}, mixers or {}, files or mixer_files())


def test_groups_keep_their_order_and_cycle_through_their_mixers():
    plan = plan_of({"early": {"layers": 2, "mixer": "full"}, "deep": {"layers": 3, "mixer": ["mamba2", "linear"]}})
    assert [(layer.index, layer.group, layer.mixer) for layer in plan.layers] == [
        (0, "early", "full"),
        (1, "early", "full"),
        (2, "deep", "mamba2"),
        (3, "deep", "linear"),
        (4, "deep", "mamba2"),
    ]
    assert plan.groupings() == {
        ("group", "early"): (0, 1),
        ("group", "deep"): (2, 3, 4),
        ("mixer", "full"): (0, 1),
        ("mixer", "mamba2"): (2, 4),
        ("mixer", "linear"): (3,),
    }


def test_a_group_has_as_many_layers_as_its_list_unless_layers_is_set():
    assert len(plan_of({"all": {"mixer": "(mamba2 full)x2 linear"}}).layers) == 5


def test_settings_in_place_override_the_mixers_node_which_overrides_the_yaml():
    groups = {"early": {"layers": 1, "mixer": "sliding"}, "deep": {"mixer": {"name": "sliding", "window": 8}}}
    early, deep = plan_of(groups, {"sliding": {"window": 16, "heads": 2}}).layers
    assert (early.settings["window"], early.settings["heads"]) == (16, 2)
    assert (deep.settings["window"], deep.settings["heads"]) == (8, 2)


def test_two_spellings_of_a_stack_have_one_normal_form():
    spellings = ["(mamba2 full)x2", ["mamba2", "full"], [{"name": "mamba2"}, "full"]]
    forms = []
    for mixer in spellings:
        stack = {"width": 64, "groups": {"all": {"layers": 4, "mixer": mixer}}}
        forms.append(in_normal_form(stack, expand(stack, {}, mixer_files())))
    assert forms[0] == forms[1] == forms[2]
    assert forms[0]["groups"]["all"]["mixer"] == "mamba2 full mamba2 full"


def test_the_normal_form_keeps_settings_that_differ_by_layer():
    stack = {"width": 64, "groups": {"all": {"mixer": [{"name": "sliding", "window": w} for w in (8, 16)]}}}
    other = {"width": 64, "groups": {"all": {"mixer": [{"name": "sliding", "window": w} for w in (16, 8)]}}}
    form = in_normal_form(stack, expand(stack, {}, mixer_files()))
    assert form != in_normal_form(other, expand(other, {}, mixer_files()))


REFUSED = {
    "an unknown mixer": ({"deep": {"layers": 1, "mixer": "slidng"}}, "`stack.groups.deep.mixer=slidng`: no such mixer; did you mean `sliding`?"),
    "an unknown key of a group": ({"deep": {"layrs": 1, "mixer": "full"}}, "`stack.groups.deep.layrs=1`: no such key; did you mean `layers`?"),
    "an unknown hyper-parameter": ({"deep": {"mixer": {"name": "sliding", "windw": 4}}}, "`stack.groups.deep.mixer.windw=4`: Sliding has no such setting; did you mean `window`?"),
    "a window of 0": ({"deep": {"mixer": {"name": "sliding", "window": 0}}}, "`stack.groups.deep.mixer.window=0`: "),
    "a value of the wrong type": ({"deep": {"mixer": {"name": "sliding", "window": "wide"}}}, "`stack.groups.deep.mixer.window=wide`: must be a whole number"),
    "heads that do not divide the width": ({"deep": {"mixer": {"name": "full", "heads": 5}}}, "`stack.groups.deep.mixer.heads=5`: "),
    "no layers": ({"deep": {"layers": 0, "mixer": "full"}}, "`stack.groups.deep.layers=0`: must be a whole number of at least 1"),
    "no mixer": ({"deep": {"layers": 1}}, "`stack.groups.deep.mixer`: missing"),
    "an empty list": ({"deep": {"layers": 1, "mixer": []}}, "`stack.groups.deep.mixer=[]`: must hold at least one mixer"),
    "a broken pattern": ({"deep": {"mixer": "(full"}}, "`stack.groups.deep.mixer=(full`: a `(` without its `)`"),
    "no groups": ({}, "`stack.groups`: "),
    "a group that is a word": ({"deep": "full"}, "`stack.groups.deep=full`: must be a mapping, e.g. {layers: 2, mixer: full}"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_key_the_value_and_the_near_miss(case):
    groups, message = REFUSED[case]
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        plan_of(groups)
    assert "\n" not in str(refused.value)


def test_an_unknown_name_under_mixers_is_refused():
    with pytest.raises(ConfigError, match=re.escape("`mixers.slidin`: no such mixer; did you mean `sliding`?")):
        plan_of({"deep": {"mixer": "full"}}, {"slidin": {"window": 4}})


class LooksAhead(Mixer):
    kind = "full"
    causal = False
    bounded_state = False

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(width, width)


def test_a_users_mixer_is_a_class_and_a_yaml_and_a_non_causal_one_is_refused_in_a_causal_task(tmp_path):
    file = tmp_path / "ahead.yaml"
    file.write_text(f"_target_: {__name__}.LooksAhead\n")
    groups = {"deep": {"mixer": "ahead"}}
    stack = {"width": 64, "groups": groups}
    assert expand(stack, {}, {"ahead": file}, causal=False).layers[0].mixer == "ahead"
    with pytest.raises(ConfigError, match=re.escape("`stack.groups.deep.mixer=ahead`: sees the future")):
        expand(stack, {}, {"ahead": file})


def test_a_mixer_that_cannot_be_imported_is_refused_with_its_cause(tmp_path):
    file = tmp_path / "lost.yaml"
    file.write_text("_target_: no_such_package.Lost\n")
    with pytest.raises(ConfigError, match=r"mixers\.lost\._target_=no_such_package\.Lost`: cannot be imported"):
        plan_of({"deep": {"mixer": "lost"}}, files={"lost": file})
