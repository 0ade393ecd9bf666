"""One layer of an expanded stack, and how its mixer is built."""

import inspect
from dataclasses import dataclass
from typing import Any

from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError


@dataclass(frozen=True)
class Layer:
    """One layer of an expanded stack."""

    index: int
    group: str
    mixer: str  # the name of a file in conf/mixers/; the names of parallel parts joined by `+`
    settings: dict[str, Any]  # `_target_` and hyper-parameters, without those that the stack sets
    where: str  # the configuration path that error messages name
    parts: tuple["Layer", ...] = ()  # of a parallel layer, whose `settings` say how the parts' outputs are combined

    def part_names(self) -> list[str]:
        """Return a distinct name for each part; a second `sliding` is `sliding_2`."""
        names: list[str] = []
        for part in self.parts:
            number = 1 + sum(earlier.mixer == part.mixer for earlier in self.parts[: len(names)])
            names.append(part.mixer if number == 1 else f"{part.mixer}_{number}")
        return names

    def all_settings(self) -> dict[str, Any]:
        """Return the settings of the mixer, with those of its parts under `parts`."""
        if not self.parts:
            return self.settings
        parts = zip(self.part_names(), self.parts, strict=True)
        return {**self.settings, "parts": {name: part.settings for name, part in parts}}

    @property
    def fingerprint(self) -> str:
        """A text that is equal for two layers if their mixers' names and settings are."""
        return f"{self.mixer} {sorted(self.all_settings().items(), key=str)}"


def build_mixer(layer: Layer, width: int, causal: bool, layers: int | None = None) -> Any:
    """Build the mixer of a layer, one of `layers` (null: alone, at no depth).

    A mixer with a causal and a bidirectional form is built as `causal` says, and one whose
    initialisation depends on the depth for its place among the layers, unless its settings say
    otherwise.
    """
    from hybridlab.mixers.base import Mixer

    given: dict[str, Any] = {"width": width}
    if layer.parts:
        built = (build_mixer(part, width, causal, layers) for part in layer.parts)
        given["parts"] = dict(zip(layer.part_names(), built, strict=True))
    target = find_target(layer.settings, layer.where)
    offered = (
        {"causal": causal} if layers is None else {"causal": causal, "layer_index": layer.index, "layer_count": layers}
    )
    taken = inspect.signature(target).parameters
    given |= {name: value for name, value in offered.items() if name in taken and name not in layer.settings}
    mixer = build(layer.settings, layer.where, **given)
    if not isinstance(mixer, Mixer):
        raise ConfigError(f"`{layer.where}`: {target.__name__} is not a hybridlab.mixers.base.Mixer")
    return mixer
