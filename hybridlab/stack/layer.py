"""One layer of an expanded stack, and its mixer."""

import inspect
from dataclasses import dataclass
from typing import Any

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError


@dataclass(frozen=True)
class Layer:
    """One layer of the expanded stack."""

    index: int
    group: str
    mixer: str  # the mixer's name: a file of conf/mixers/; those of parallel parts are joined by `+`
    settings: dict[str, Any]  # its `_target_` and hyper-parameters, without what the stack gives
    where: str  # the configuration path that a message about it should name
    parts: tuple["Layer", ...] = ()  # of a parallel layer: `settings` says how they are combined, each part its own

    def part_names(self) -> list[str]:
        """Name the parts of a parallel layer, each once: a second `sliding` is `sliding_2`."""
        names: list[str] = []
        for part in self.parts:
            number = 1 + sum(earlier.mixer == part.mixer for earlier in self.parts[: len(names)])
            names.append(part.mixer if number == 1 else f"{part.mixer}_{number}")
        return names

    def all_settings(self) -> dict[str, Any]:
        """Return the settings of the mixer, with those of its parts if it has some."""
        if not self.parts:
            return self.settings
        parts = zip(self.part_names(), self.parts, strict=True)
        return {**self.settings, "parts": {name: part.settings for name, part in parts}}

    @property
    def fingerprint(self) -> str:
        """What is equal for two layers if their mixers are: the name and all settings."""
        return f"{self.mixer} {sorted(self.all_settings().items(), key=str)}"


def build_mixer(layer: Layer, width: int, causal: bool) -> Any:
    """Build the mixer of a layer, in its causal form or, where it has one and the task allows it, its bidirectional one.

    A `causal` among the mixer's own settings wins.
    """
    from hybridlab.mixers.base import Mixer

    given: dict[str, Any] = {"width": width}
    if layer.parts:
        built = (build_mixer(part, width, causal) for part in layer.parts)
        given["parts"] = dict(zip(layer.part_names(), built, strict=True))
    target = find_target(layer.settings, layer.where)
    if "causal" in inspect.signature(target).parameters and "causal" not in layer.settings:
        given["causal"] = causal
    mixer = build(layer.settings, layer.where, **given)
    if not isinstance(mixer, Mixer):
        raise ConfigError(f"`{layer.where}`: {target.__name__} is not a hybridlab.mixers.base.Mixer")
    return mixer
