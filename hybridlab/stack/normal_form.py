"""The normal form of a layer group: equal for equal layers, and complete in itself.

`{layers: 3, mixer: mamba2 full mamba2, settings: {mamba2: {...}, full: {...}}}`, where the settings
of a mixer are a list if they differ by layer. A record keeps stacks in this form; expanded again,
it reads no file of a named mixer, so that defaults that change do not change a recorded run.
"""

from collections.abc import Mapping
from typing import Any

from hybridlab.errors import ConfigError
from hybridlab.stack.layer import Layer


def normal_form(layers: list[Layer]) -> dict[str, Any]:
    """Return the normal form of the layers of a group."""
    names = [layer.mixer for layer in layers]
    settings: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        by_layer = [layer.all_settings() for layer in layers if layer.mixer == name]
        settings[name] = by_layer[0] if all(each == by_layer[0] for each in by_layer) else by_layer
    mixer = names[0] if len(set(names)) == 1 else " ".join(names)
    return {"layers": len(layers), "mixer": mixer, "settings": settings}


def from_normal_form(declared: Mapping[str, Any], group: str, first: int) -> list[Layer]:
    """Return the layers of a group in normal form, the first with the index `first`."""
    where = f"stack.groups.{group}"
    names, count, settings = declared["mixer"], declared.get("layers"), declared["settings"]
    if not isinstance(names, str) or not isinstance(settings, Mapping):
        raise ConfigError(f"`{where}.settings`: needs `mixer` as names, and a mapping from each to its settings")
    named = names.split()
    if len(named) == 1 and isinstance(count, int):
        named *= count
    if count != len(named):
        raise ConfigError(f"`{where}.layers={count}`: `mixer` names {len(named)}")
    if set(settings) != set(named):
        raise ConfigError(f"`{where}.settings`: must be of the mixers {sorted(set(named))}, not of {sorted(settings)}")
    layers: list[Layer] = []
    for index, name in enumerate(named, start=first):
        own, path = settings[name], f"{where}.settings.{name}"
        if isinstance(own, list):
            nth = sum(layer.mixer == name for layer in layers)
            if len(own) != named.count(name):
                raise ConfigError(f"`{path}`: must be a mapping, or a list with one for each of its layers")
            own = own[nth]
        layers.append(_layer(own, name, index, group, path))
    return layers


def _layer(settings: Any, name: str, index: int, group: str, where: str) -> Layer:
    if not isinstance(settings, Mapping) or "_target_" not in settings:
        raise ConfigError(f"`{where}`: must be a `_target_` and its settings")
    own = {str(key): value for key, value in settings.items() if key != "parts"}
    parts = settings.get("parts", {}) if "+" in name else {}
    built = (
        tuple(
            _layer(part, mixer, index, group, f"{where}.parts.{key}")
            for mixer, (key, part) in zip(name.split("+"), parts.items(), strict=True)
        )
        if parts
        else ()
    )
    return Layer(index, group, name, own, where, built)
