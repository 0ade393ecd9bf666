"""From the configuration of a stack to its plan.

Layers and groups are expanded and checked here and nowhere else.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError, near_miss, replacing, under
from hybridlab.records.grouping import by_group_and_mixer
from hybridlab.stack.layer import Layer, build_mixer
from hybridlab.stack.normal_form import from_normal_form, normal_form
from hybridlab.stack.pattern import expand_pattern
from hybridlab.validate import whole

PARALLEL = {"_target_": "hybridlab.mixers.parallel.Parallel", "combine": "mean"}


@dataclass(frozen=True)
class Plan:
    """An expanded stack: one entry per layer, nearest to the embedding first."""

    width: int
    layers: tuple[Layer, ...]
    channel: dict[str, Any] | None  # the channel mixer of every layer; None: no channel mixers
    causal: bool = True  # no position sees a later one; False: mixers take their bidirectional form

    def groupings(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Return the layer indices of each declared group, then of each kind of mixer.

        Keys are ("group", its name) and ("mixer", its name).
        """
        found = by_group_and_mixer(self.layers, getattr)
        return {key: tuple(layer.index for layer in layers) for key, layers in found.items()}

    def part_groupings(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return, for each part of a parallel mixer, the layers that hold it and its name in them.

        Keys read like "full in full+mamba2".
        """
        found: dict[str, tuple[tuple[int, ...], str]] = {}
        for layer in self.layers:
            for part in layer.part_names():
                key = f"{part} in {layer.mixer}"
                found[key] = (*found.get(key, ((), part))[0], layer.index), part
        return found

    def distinct_mixers(self) -> list[Layer]:
        """Return the first layer of each distinct mixer.

        Mixers are the same if name and hyper-parameters are.
        """
        first: dict[str, Layer] = {}
        for layer in self.layers:
            first.setdefault(layer.fingerprint, layer)
        return list(first.values())


def expand(
    stack: Mapping[str, Any], mixers: Mapping[str, Any], files: Mapping[str, Path], *, causal: bool = True
) -> Plan:
    """Expand and check the configuration nodes `stack` and `mixers`.

    `files` is the YAML of each named mixer.

    Every distinct mixer is built once on the meta device, which raises the mixer's own errors here.
    `causal` says whether the task forbids looking ahead.
    """
    _check_keys(stack, "stack", required=("width", "groups"), optional=("channel", "match"))
    width = stack["width"]
    with under("stack"):
        whole(width=width)
    _check_overrides(mixers, files, width)
    groups = stack["groups"]
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigError("`stack.groups`: must hold at least one layer group")
    layers: list[Layer] = []
    for group, declared in groups.items():
        layers += _expand_group(str(group), declared, mixers, files, first=len(layers))
    plan = Plan(width, tuple(layers), _channel(stack.get("channel")), causal)
    _check_by_building(plan, files)
    return plan


def single_layer(name: str, width: int, mixers: Mapping[str, Any], files: Mapping[str, Path]) -> Layer:
    """Return a named mixer as the only layer of a stack, with its settings in the node `mixers`."""
    return expand({"width": width, "groups": {"all": {"mixer": name}}}, mixers, files, causal=False).layers[0]


def has_causal_form(layer: Layer) -> bool:
    """Return whether the mixer of a layer has a form that never sees the future."""
    return bool(find_target(layer.settings, layer.where).causal)


def check_mixer_name(name: Any, given: str, names: Collection[str]) -> None:
    """Require the name of a mixer; `given` is the setting that the error message quotes."""
    if not isinstance(name, str) or name not in names:
        raise ConfigError(f"`{given}`: no such mixer; {near_miss(str(name), names)}")


def in_normal_form(stack: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the `stack` node with each group in normal form: equal stacks get the same run id."""
    groups: dict[str, list[Layer]] = {}
    for layer in plan.layers:
        groups.setdefault(layer.group, []).append(layer)
    return {**stack, "channel": plan.channel, "groups": {name: normal_form(some) for name, some in groups.items()}}


def _expand_group(
    group: str, declared: Any, mixers: Mapping[str, Any], files: Mapping[str, Path], first: int
) -> list[Layer]:
    where = f"stack.groups.{group}"
    if not isinstance(declared, Mapping):
        raise ConfigError(f"`{where}={declared}`: must be a mapping, e.g. {{layers: 2, mixer: full}}")
    _check_keys(declared, where, required=("mixer",), optional=("layers", "settings"))
    if "settings" in declared:
        return from_normal_form(declared, group, first)
    entries = _entries(declared["mixer"], f"{where}.mixer")
    count = declared.get("layers", len(entries))
    with under(where):
        whole(layers=count)
    numbered = enumerate(islice(cycle(entries), count), start=first)
    return [_layer(entry, index, group, f"{where}.mixer", mixers, files) for index, entry in numbered]


def _layer(
    entry: Any, index: int, group: str, where: str, mixers: Mapping[str, Any], files: Mapping[str, Path]
) -> Layer:
    """Return the layer of one entry of a group's list of mixers."""
    if isinstance(entry, Mapping) and "parallel" in entry:
        return _parallel_layer(entry, index, group, where, mixers, files)
    name, inline = _name_and_settings(entry, where)
    check_mixer_name(name, f"{where}={name}", files)
    path = where if inline else f"mixers.{name}"
    return Layer(index, group, name, {**_load(files[name]), **mixers.get(name, {}), **inline}, path)


def _parallel_layer(
    entry: Mapping[str, Any], index: int, group: str, where: str, mixers: Mapping[str, Any], files: Mapping[str, Path]
) -> Layer:
    """Return the layer of `{parallel: [full, mamba2], combine: mean}`."""
    named = entry["parallel"]
    if "name" in entry:
        raise ConfigError(f"`{where}`: both `name` and `parallel`; {replacing(where, '{parallel:[...]}')}")
    if not isinstance(named, list) or len(named) < 2:
        raise ConfigError(f"`{where}.parallel={named}`: must be a list of two or more mixers")
    if any(isinstance(part, Mapping) and "parallel" in part for part in named):
        raise ConfigError(f"`{where}.parallel={named}`: a part must be a mixer, not a parallel layer")
    parts = tuple(_layer(part, index, group, f"{where}.parallel", mixers, files) for part in named)
    combination = {str(key): value for key, value in entry.items() if key != "parallel"}
    return Layer(index, group, "+".join(part.mixer for part in parts), {**PARALLEL, **combination}, where, parts)


def _entries(mixer: Any, where: str) -> list[Any]:
    """Return the mixers that a group cycles through, from a name, a list or a compact string."""
    if isinstance(mixer, str):
        try:
            mixer = expand_pattern(mixer)
        except ValueError as error:
            raise ConfigError(f"`{where}={mixer}`: {error}") from error
    entries = mixer if isinstance(mixer, list) else [mixer]
    if not entries:
        raise ConfigError(f"`{where}={mixer}`: must hold at least one mixer")
    return entries


def _name_and_settings(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the settings of `sliding` or `{name: sliding, window: 256}`."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
        return entry["name"], {key: value for key, value in entry.items() if key != "name"}
    raise ConfigError(f"`{where}={entry}`: must be a mixer's name, {{name: ..., its settings}} or {{parallel: [...]}}")


def _load(file: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    settings = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    if not isinstance(settings, dict):
        raise ConfigError(f"{file}: must be a mapping with a `_target_` and its hyper-parameters")
    return {str(key): value for key, value in settings.items()}


def _channel(channel: Any) -> dict[str, Any] | None:
    if channel is None or isinstance(channel, Mapping):
        return None if channel is None else dict(channel)
    raise ConfigError(f"`stack.channel={channel}`: must be a `_target_` and its settings, or null: no channel mixers")


def _check_by_building(plan: Plan, files: Mapping[str, Path]) -> None:
    """Build each distinct mixer and the channel mixer on the meta device, to raise their errors."""
    import torch

    with torch.device("meta"):
        for layer in plan.distinct_mixers():
            mixer = build_mixer(layer, plan.width, plan.causal)
            if plan.causal and not mixer.causal:
                name = next((part.mixer for part in layer.parts if not has_causal_form(part)), layer.mixer)
                which = f"`{name}` " if layer.parts else ""
                raise ConfigError(
                    f"`stack.groups.{layer.group}.mixer={layer.mixer}`: {which}sees the future, and the task is causal"
                    + (f"; did you mean `{name}_causal`?" if f"{name}_causal" in files else "")
                )
        if plan.channel is not None:
            build(plan.channel, "stack.channel", width=plan.width)


def _check_overrides(mixers: Mapping[str, Any], files: Mapping[str, Path], width: int) -> None:
    """Check the node `mixers`, also for mixers that no layer uses."""
    import torch

    for name, settings in mixers.items():
        check_mixer_name(name, f"mixers.{name}", files)
        if not isinstance(settings, Mapping):
            raise ConfigError(f"`mixers.{name}={settings}`: must be a mapping; set e.g. `mixers.{name}.heads=4`")
        with torch.device("meta"):
            build({**_load(files[name]), **settings}, f"mixers.{name}", width=width)


def _check_keys(node: Mapping[str, Any], where: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    for key in node:
        if key not in required + optional:
            raise ConfigError(f"`{where}.{key}={node[key]}`: no such key; {near_miss(str(key), required + optional)}")
    for key in required:
        if node.get(key) is None:
            raise ConfigError(f"`{where}.{key}`: missing")
