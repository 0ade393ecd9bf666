"""The normal form of a stack expands to the same stack, without the files of its mixers."""

import pytest

from hybridlab.config import compose, conf_dir, mixer_files, resolve
from hybridlab.errors import ConfigError
from hybridlab.stack.plan import expand, in_normal_form

CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU", "expansion": 2.0}
MIXERS = [
    "full",
    ["full", "mamba2"],
    "(gated_conv mamba2)x2",
    [{"name": "sliding", "window": 8}, {"name": "sliding", "window": 16}, "full"],
    [{"parallel": ["full", {"name": "sliding", "window": 8}, "sliding"], "combine": "gate"}, "full"],
]
STACKS = [
    {"width": 64, "groups": {"early": {"mixer": mixer, "layers": 4}, "deep": {"mixer": "full"}}} for mixer in MIXERS
]
STACKS += [{**STACKS[0], "channel": CHANNEL, "match": "params"}]
FILES = sorted(file.stem for file in (conf_dir() / "stack").glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_every_stack_of_conf_comes_back(name):
    given = ["stack.groups.all.mixer=full"] if name == "one_group" else []
    check(resolve(compose([f"stack={name}", *given]))["stack"])


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_it_expands_to_the_same_layers_without_files(stack):
    check(stack)


def check(stack):
    plan = expand(stack, {"linear": {"heads": 2}}, mixer_files())
    form = in_normal_form(stack, plan)
    again = expand(form, {}, {})
    assert [layer.fingerprint for layer in again.layers] == [layer.fingerprint for layer in plan.layers]
    assert [(layer.index, layer.group) for layer in again.layers] == [
        (layer.index, layer.group) for layer in plan.layers
    ]
    assert again.channel == plan.channel
    assert in_normal_form(form, again) == form


FULL = {"_target_": "hybridlab.mixers.attention.full.Full"}


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"mixer": ["full"], "settings": {"full": FULL}}, "`stack.groups.early.settings`: needs `mixer` as names"),
        ({"mixer": "full", "settings": 3}, "`stack.groups.early.settings`: needs `mixer` as names"),
        (
            {"mixer": "full", "layers": 2, "settings": {}},
            "`stack.groups.early.settings`: must be of the mixers ['full']",
        ),
        (
            {"mixer": "full full", "layers": 3, "settings": {"full": FULL}},
            "`stack.groups.early.layers=3`: `mixer` names 2",
        ),
        ({"mixer": "full", "layers": 2, "settings": {"full": [FULL]}}, "`stack.groups.early.settings.full`: must be a"),
        (
            {"mixer": "full", "layers": 1, "settings": {"full": {"heads": 2}}},
            "`stack.groups.early.settings.full`: must be a",
        ),
        (
            {"mixer": "full", "layers": 1, "settings": {"full": {**FULL, "haeds": 2}}},
            "`stack.groups.early.settings.full.haeds=2`: Full has no such setting",
        ),
    ],
)
def test_a_mistake_is_named(group, message):
    with pytest.raises(ConfigError) as refused:
        expand({"width": 64, "groups": {"early": group}}, {}, mixer_files())
    assert str(refused.value).startswith(message)
