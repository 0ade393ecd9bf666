"""References to the mixers of a stack that a measurement is about."""

from typing import Any, NamedTuple

from hybridlab.stack.model import Stack
from hybridlab.stack.plan import Plan


class MixerRef(NamedTuple):
    """The mixer of a layer, or a part of it where it is parallel."""

    layer: int
    part: str = ""

    def of(self, stack: Stack) -> Any:
        """Return the module."""
        mixer: Any = stack.layers[self.layer].mixer
        return mixer.parts[self.part] if self.part else mixer

    def covers(self, other: "MixerRef") -> bool:
        """Return whether the other is this mixer or a part of it."""
        return self.layer == other.layer and self.part in ("", other.part)


def mixer_refs(plan: Plan) -> list[MixerRef]:
    """Return all mixers of a stack: one per layer, and the parts of those that are parallel."""
    return [MixerRef(layer.index, part) for layer in plan.layers for part in ("", *layer.part_names())]


def mixers_by_group(plan: Plan) -> dict[tuple[str, str], list[MixerRef]]:
    """Return the mixers of each layer group, of each kind, of each part of parallel layers, and of
    each layer.

    Keys are the `grouping` and `group` of a measurement.
    """
    found = {key: [MixerRef(index) for index in layers] for key, layers in plan.groupings().items()}
    for name, (layers, part) in plan.part_groupings().items():
        found["part", name] = [MixerRef(index, part) for index in layers]
    return found | {("layer", str(layer.index)): [MixerRef(layer.index)] for layer in plan.layers}
