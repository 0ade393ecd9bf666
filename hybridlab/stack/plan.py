"""From the configuration of a stack to its plan: the only place where layers and groups are expanded and checked."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError, near_miss, replacing
from hybridlab.stack.layer import Layer, build_mixer
from hybridlab.stack.pattern import expand_pattern

PARALLEL = {"_target_": "hybridlab.mixers.parallel.Parallel", "combine": "mean"}


@dataclass(frozen=True)
class Plan:
    """A whole stack, one entry per layer, nearest to the embedding first."""

    width: int
    layers: tuple[Layer, ...]
    channel: dict[str, Any] | None  # the channel mixer of every layer, or none
    causal: bool = True  # no position sees what comes after it; else mixers take their bidirectional form

    def groupings(self) -> dict[tuple[str, str], tuple[int, ...]]:
        """Return the layers of each group of the report: the declared ones, then one for each kind of mixer.

        Keys are ("group", its name) and ("mixer", its name).
        """
        found: dict[tuple[str, str], tuple[int, ...]] = {}
        for grouping in ("group", "mixer"):
            for layer in self.layers:
                key = (grouping, getattr(layer, grouping))
                found[key] = (*found.get(key, ()), layer.index)
        return found

    def part_groupings(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return the layers that hold each part of a parallel mixer, and the part's name in them.

        Keys are spelt as in "full in full+mamba2".
        """
        found: dict[str, tuple[tuple[int, ...], str]] = {}
        for layer in self.layers:
            for part in layer.part_names():
                key = f"{part} in {layer.mixer}"
                found[key] = (*found.get(key, ((), part))[0], layer.index), part
        return found

    def distinct_mixers(self) -> list[Layer]:
        """Return the first layer of each distinct mixer: same name, same hyper-parameters."""
        first: dict[str, Layer] = {}
        for layer in self.layers:
            first.setdefault(layer.fingerprint, layer)
        return list(first.values())


def expand(
    stack: Mapping[str, Any], mixers: Mapping[str, Any], files: Mapping[str, Path], *, causal: bool = True
) -> Plan:
    """Expand and check the configuration nodes `stack` and `mixers`; `files` is the YAML of each named mixer.

    Every mixer is built once on the `meta` device, so that its own refusals come here too. `causal` says whether the task
    forbids to look ahead.
    """
    _check_keys(stack, "stack", required=("width", "groups"), optional=("channel", "match"))
    width = stack["width"]
    _check_count(width, "stack.width")
    _check_overrides(mixers, files, width)
    groups = stack["groups"]
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigError("`stack.groups`: at least one layer group is needed")
    layers: list[Layer] = []
    for group, declared in groups.items():
        layers += _expand_group(str(group), declared, mixers, files, first=len(layers))
    plan = Plan(width, tuple(layers), _channel(stack.get("channel")), causal)
    _check_by_building(plan, files)
    return plan


def single_layer(name: str, width: int, mixers: Mapping[str, Any], files: Mapping[str, Path]) -> Layer:
    """Return a named mixer as the only layer of a stack, with what the node `mixers` sets of it."""
    return expand({"width": width, "groups": {"all": {"mixer": name}}}, mixers, files, causal=False).layers[0]


def has_causal_form(layer: Layer) -> bool:
    """Say whether the mixer of a layer can be built so that it never sees the future."""
    return bool(find_target(layer.settings, layer.where).causal)


def check_mixer_name(name: Any, given: str, names: Collection[str]) -> None:
    """Refuse a name that no mixer has; `given` is how it was given."""
    if not isinstance(name, str) or name not in names:
        raise ConfigError(f"`{given}`: no such mixer; {near_miss(str(name), names)}")


def normal_form(stack: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the `stack` node with each group spelt out, so that two spellings of one stack are one run."""
    groups: dict[str, list[Layer]] = {}
    for layer in plan.layers:
        groups.setdefault(layer.group, []).append(layer)
    spelt_out = {name: _spelt_out(layers) for name, layers in groups.items()}
    return {**stack, "channel": plan.channel, "groups": spelt_out}


def _spelt_out(layers: list[Layer]) -> dict[str, Any]:
    """Spell out one group: its mixers by layer, and each mixer's settings (by layer where they differ)."""
    names = [layer.mixer for layer in layers]
    settings: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        by_layer = [layer.all_settings() for layer in layers if layer.mixer == name]
        settings[name] = by_layer[0] if all(each == by_layer[0] for each in by_layer) else by_layer
    mixer = names[0] if len(set(names)) == 1 else " ".join(names)
    return {"layers": len(layers), "mixer": mixer, "settings": settings}


def _expand_group(
    group: str, declared: Any, mixers: Mapping[str, Any], files: Mapping[str, Path], first: int
) -> list[Layer]:
    where = f"stack.groups.{group}"
    if not isinstance(declared, Mapping):
        raise ConfigError(f"`{where}={declared}`: `layers` and `mixer` are needed, e.g. {{layers: 2, mixer: full}}")
    _check_keys(declared, where, required=("mixer",), optional=("layers",))
    where = f"{where}.mixer"
    entries = _entries(declared["mixer"], where)
    count = declared.get("layers", len(entries))
    _check_count(count, f"stack.groups.{group}.layers")
    layers = []
    for index, entry in enumerate(islice(cycle(entries), count), start=first):
        layers.append(_layer(entry, index, group, where, mixers, files))
    return layers


def _layer(
    entry: Any, index: int, group: str, where: str, mixers: Mapping[str, Any], files: Mapping[str, Path]
) -> Layer:
    """Return the layer that one entry of a mixer list stands for."""
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
        raise ConfigError(f"`{where}.parallel={named}`: a list of two or more mixers is needed")
    if any(isinstance(part, Mapping) and "parallel" in part for part in named):
        raise ConfigError(f"`{where}.parallel={named}`: a part is a mixer, not again a parallel layer")
    parts = tuple(_layer(part, index, group, f"{where}.parallel", mixers, files) for part in named)
    combination = {str(key): value for key, value in entry.items() if key != "parallel"}
    return Layer(index, group, "+".join(part.mixer for part in parts), {**PARALLEL, **combination}, where, parts)


def _entries(mixer: Any, where: str) -> list[Any]:
    """Return the list of mixers that a group cycles through, whichever way it is spelt."""
    if isinstance(mixer, str):
        try:
            mixer = expand_pattern(mixer)
        except ValueError as error:
            raise ConfigError(f"`{where}={mixer}`: {error}") from error
    entries = mixer if isinstance(mixer, list) else [mixer]
    if not entries:
        raise ConfigError(f"`{where}={mixer}`: at least one mixer is needed")
    return entries


def _name_and_settings(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Split `sliding` or `{name: sliding, window: 256}` into the mixer's name and what is set in place."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
        return entry["name"], {key: value for key, value in entry.items() if key != "name"}
    raise ConfigError(
        f"`{where}={entry}`: a mixer's name is needed, or {{name: ..., its settings}}, or {{parallel: [...]}}"
    )


def _load(file: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    settings = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    if not isinstance(settings, dict):
        raise ConfigError(f"{file}: a mixer's YAML needs a `_target_` and its hyper-parameters")
    return {str(key): value for key, value in settings.items()}


def _channel(channel: Any) -> dict[str, Any] | None:
    if channel is None or isinstance(channel, Mapping):
        return None if channel is None else dict(channel)
    raise ConfigError(f"`stack.channel={channel}`: null, or a `_target_` and its settings")


def _check_by_building(plan: Plan, files: Mapping[str, Path]) -> None:
    """Build each distinct mixer and the channel mixer on the meta device: no memory, milliseconds, all refusals."""
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
    """Refuse a mistake under `mixers`, even where no layer uses that mixer: it would pass unseen."""
    import torch

    for name, settings in mixers.items():
        check_mixer_name(name, f"mixers.{name}", files)
        if not isinstance(settings, Mapping):
            raise ConfigError(f"`mixers.{name}={settings}`: hyper-parameters are needed, e.g. `mixers.{name}.heads=4`")
        with torch.device("meta"):
            build({**_load(files[name]), **settings}, f"mixers.{name}", width=width)


def _check_count(value: Any, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"`{where}={value}`: a whole number of at least 1 is needed")


def _check_keys(node: Mapping[str, Any], where: str, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    for key in node:
        if key not in required + optional:
            raise ConfigError(f"`{where}.{key}={node[key]}`: no such key; {near_miss(str(key), required + optional)}")
    for key in required:
        if node.get(key) is None:
            raise ConfigError(f"`{where}.{key}`: missing")
