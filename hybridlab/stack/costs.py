"""The costs of candidate mixers, while the free sizes of a stack are moved."""

from collections.abc import Callable
from typing import Any

from torch import nn

from hybridlab.errors import ConfigError
from hybridlab.stack.free_size import free_sizes
from hybridlab.stack.layer import Layer, build_mixer
from hybridlab.stack.plan import Plan

Cost = int | float  # parameters, FLOPs or bytes


class Costs:
    """The costs of mixers, by fingerprint: each distinct mixer is built and measured once."""

    def __init__(self, plan: Plan, measure: Callable[[nn.Module], Cost]) -> None:
        self._plan, self._measure = plan, measure
        self._built: dict[str, nn.Module] = {}
        self._costs: dict[str, Cost] = {}

    def accepts(self, layer: Layer) -> bool:
        """Return whether the mixer accepts these settings."""
        try:
            self._mixer(layer)
        except ConfigError:
            return False
        return True

    def of(self, layer: Layer) -> Cost:
        """Return the cost of the layer's mixer."""
        if layer.fingerprint not in self._costs:
            self._costs[layer.fingerprint] = self._measure(self._mixer(layer))
        return self._costs[layer.fingerprint]

    def mean(self, layers: tuple[Layer, ...]) -> Cost:
        """Return the mean cost of the layers' mixers."""
        return sum(map(self.of, layers)) / len(layers)

    def with_chosen_sizes(self, layer: Layer) -> Layer:
        """Return the layer with the values that its mixer chooses for free sizes that are null."""
        for size in free_sizes(layer):
            if size.of(layer) is None:
                mixer: Any = self._mixer(layer)
                part = mixer if size.part is None else mixer.parts[layer.part_names()[size.part]]
                layer = size.set(layer, getattr(part, size.name, None))
        return layer

    def _mixer(self, layer: Layer) -> nn.Module:
        if layer.fingerprint not in self._built:
            self._built[layer.fingerprint] = build_mixer(layer, self._plan.width, self._plan.causal)
        return self._built[layer.fingerprint]
