"""Decoding: what a mixer puts out when it cannot see ahead."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_leaves

from hybridlab.errors import ConfigError
from hybridlab.evaluation.leak.modes import Mode, Precision, call, calling
from hybridlab.evaluation.leak.rounding import is_rounding, moved

DECODING = Mode(False, "no_grad")


def decode(
    mixer: Any, x: Float[Tensor, "b t d"], sizes: list[int], precision: Precision
) -> Float[Tensor, "b t d"] | None:
    """Extend an empty past by chunks of some sizes; return all outputs, or None if the mixer has no
    decoding form.
    """
    with calling(mixer, DECODING, precision):
        try:
            state, outputs = mixer.initial_state(len(x), x), []
            for chunk in x.split(sizes, dim=1):
                y, state = mixer.extend(chunk.clone(), state)
                if y.shape != chunk.shape:
                    name = type(mixer).__name__
                    raise ConfigError(f"{name}.extend returns {list(y.shape)} for inputs of {list(chunk.shape)}")
                outputs.append(y)
        except NotImplementedError:
            return None
    return torch.cat(outputs, dim=1)


def writes_into_state(mixer: Any, x: Float[Tensor, "b t d"], precision: Precision) -> bool:
    """Return whether `extend` changes the state that it is given: the empty one or a later one."""
    with calling(mixer, DECODING, precision):
        state = mixer.initial_state(len(x), x)
        for chunk in x.split([1, 2], dim=1):
            given = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]
            copies = [leaf.clone() for leaf in given]
            _, state = mixer.extend(chunk.clone(), state)
            if not all(torch.equal(*pair) for pair in zip(given, copies, strict=True)):
                return True
    return False


def token_alone(
    module: Any, x: Float[Tensor, "b t d"], sizes: list[int], precision: Precision
) -> Float[Tensor, "b t d"] | None:
    """Return what a channel mixer puts out for each token alone, whatever the `sizes` of chunks, or
    None if its output for the whole sequence is another one: it mixes tokens.
    """

    def again(x: Tensor) -> Tensor:
        return call(module, x, DECODING, precision)

    whole, alone = again(x), again(x.reshape(-1, 1, x.shape[-1])).view_as(x)
    change = moved(alone, whole)
    return alone if is_rounding(again, x, change, torch.ones_like(change, dtype=torch.bool), None) else None
