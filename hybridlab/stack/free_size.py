"""What a mixer declares that may be moved to match stacks."""

from dataclasses import dataclass, replace
from typing import Any

from hybridlab.build import find_target
from hybridlab.stack.layer import Layer


@dataclass(frozen=True)
class FreeSize:
    """A hyper-parameter of a layer's mixer, or of one part of a parallel one, that may be moved."""

    part: int | None
    name: str

    def of(self, layer: Layer) -> Any:
        """Return its value."""
        return (layer if self.part is None else layer.parts[self.part]).settings[self.name]

    def path(self, layer: Layer) -> str:
        """Name it, with the mixer that it belongs to."""
        return ".".join([layer.mixer, *([] if self.part is None else [layer.part_names()[self.part]]), self.name])

    def moved(self, layer: Layer, value: Any) -> Layer:
        """Return the layer with another value of it."""
        if self.part is None:
            return replace(layer, settings={**layer.settings, self.name: value})
        part = layer.parts[self.part]
        part = replace(part, settings={**part.settings, self.name: value})
        return replace(layer, parts=(*layer.parts[: self.part], part, *layer.parts[self.part + 1 :]))


def free_sizes(layer: Layer) -> list[FreeSize]:
    """Return what may be moved."""
    parts = enumerate(layer.parts) if layer.parts else [(None, layer)]
    return [FreeSize(i, name) for i, part in parts for name in find_target(part.settings, part.where).free_sizes]
