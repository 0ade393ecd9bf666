"""The sizes of a mixer that `stack.match` may change."""

from dataclasses import dataclass, replace
from typing import Any

from hybridlab.build import find_target
from hybridlab.stack.layer import Layer


@dataclass(frozen=True)
class FreeSize:
    """A hyper-parameter of a mixer, or of one part of a parallel mixer, that may be changed."""

    part: int | None  # index of the part; None: the layer has one mixer
    name: str

    def of(self, layer: Layer) -> Any:
        """Return its value in the layer."""
        return (layer if self.part is None else layer.parts[self.part]).settings[self.name]

    def path(self, layer: Layer) -> str:
        """Return its name with that of its mixer, e.g. `full+mamba2.mamba2.state`."""
        return ".".join([layer.mixer, *([] if self.part is None else [layer.part_names()[self.part]]), self.name])

    def set(self, layer: Layer, value: Any) -> Layer:
        """Return the layer with another value of it."""
        if self.part is None:
            return replace(layer, settings={**layer.settings, self.name: value})
        part = layer.parts[self.part]
        part = replace(part, settings={**part.settings, self.name: value})
        return replace(layer, parts=(*layer.parts[: self.part], part, *layer.parts[self.part + 1 :]))


def free_sizes(layer: Layer) -> list[FreeSize]:
    """Return the free sizes that the layer's mixer, or the parts of it, declare, in their order."""
    parts = enumerate(layer.parts) if layer.parts else [(None, layer)]
    return [FreeSize(i, name) for i, part in parts for name in find_target(part.settings, part.where).free_sizes]
