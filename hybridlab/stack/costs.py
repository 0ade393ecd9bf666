"""What the candidates for a stack's mixers cost."""

from collections.abc import Callable
from typing import Any

from torch import nn

from hybridlab.errors import ConfigError
from hybridlab.stack.free_size import free_sizes
from hybridlab.stack.layer import Layer, build_mixer
from hybridlab.stack.plan import Plan


class Costs:
    """What mixers cost, each of which is built and measured once."""

    def __init__(self, plan: Plan, measure: Callable[[nn.Module], float]) -> None:
        self._plan, self._measure = plan, measure
        self._built: dict[str, nn.Module] = {}
        self._found: dict[str, float] = {}

    def takes(self, layer: Layer) -> bool:
        """Say whether the mixer can be built so."""
        try:
            self._mixer(layer)
        except ConfigError:
            return False
        return True

    def of(self, layer: Layer) -> float:
        """Return what the mixer costs."""
        if layer.fingerprint not in self._found:
            self._found[layer.fingerprint] = self._measure(self._mixer(layer))
        return self._found[layer.fingerprint]

    def mean(self, layers: tuple[Layer, ...]) -> float:
        """Return what the mixers of a stack cost on average."""
        return sum(map(self.of, layers)) / len(layers)

    def spelt_out(self, layer: Layer) -> Layer:
        """Return the layer with the free sizes that are left to the mixer, null, as it chooses them."""
        for size in free_sizes(layer):
            if size.of(layer) is None:
                mixer: Any = self._mixer(layer)
                part = mixer if size.part is None else mixer.parts[layer.part_names()[size.part]]
                layer = size.moved(layer, getattr(part, size.name, None))
        return layer

    def _mixer(self, layer: Layer) -> nn.Module:
        if layer.fingerprint not in self._built:
            self._built[layer.fingerprint] = build_mixer(layer, self._plan.width, self._plan.causal)
        return self._built[layer.fingerprint]
