"""A layer of transformers with the weights that its model would draw for it."""

from typing import Any

from torch import nn


def initialised(layer: nn.Module, model: Any) -> Any:
    """Draw the weights of a layer by the rules of its model, of which no other layer is built."""
    return layer.apply(model._init_weights)
