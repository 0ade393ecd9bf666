"""How the layers of a stack are put into groups: by declared layer group and by kind of mixer."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Layer = TypeVar("Layer")


def by_group_and_mixer(
    layers: Iterable[Layer], name: Callable[[Layer, str], str]
) -> dict[tuple[str, str], list[Layer]]:
    """Return the layers under ("group", declared layer group), then under ("mixer", kind of mixer),
    each in their order.

    `name(layer, "group")` and `name(layer, "mixer")` are a layer's names.
    """
    layers = list(layers)
    found: dict[tuple[str, str], list[Layer]] = {}
    for grouping in ("group", "mixer"):
        for layer in layers:
            found.setdefault((grouping, name(layer, grouping)), []).append(layer)
    return found
