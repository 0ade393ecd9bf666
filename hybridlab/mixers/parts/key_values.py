"""The key-value cache."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class KeyValues(NamedTuple):
    """The rotated keys and the values of all past tokens."""

    keys: Float[Tensor, "b g past k"]
    values: Float[Tensor, "b g past v"]

    @property
    def past(self) -> int:
        """The number of past tokens."""
        return self.keys.shape[2]

    def and_then(self, k: Float[Tensor, "b g n k"], v: Float[Tensor, "b g n v"]) -> "KeyValues":
        """Return the keys and values of the past followed by those of a chunk."""
        return KeyValues(
            torch.cat([self.keys, k.to(self.keys.dtype)], dim=2),
            torch.cat([self.values, v.to(self.values.dtype)], dim=2),
        )

    def like(self, q: Tensor) -> tuple[Float[Tensor, "b g past k"], Float[Tensor, "b g past v"]]:
        """Return keys and values in the dtype of the queries."""
        return self.keys.to(q.dtype), self.values.to(q.dtype)
