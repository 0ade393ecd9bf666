"""The state of attention that forgets nothing."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class KeyValues(NamedTuple):
    """The keys (turned to their positions) and values of all past tokens."""

    keys: Float[Tensor, "b g past k"]
    values: Float[Tensor, "b g past v"]

    @property
    def past(self) -> int:
        """How many tokens there were."""
        return self.keys.shape[2]

    def and_then(self, k: Float[Tensor, "b g n k"], v: Float[Tensor, "b g n v"]) -> "KeyValues":
        """Return those of the past and of the piece after it."""
        return KeyValues(
            torch.cat([self.keys, k.to(self.keys.dtype)], dim=2),
            torch.cat([self.values, v.to(self.values.dtype)], dim=2),
        )

    def like(self, q: Tensor) -> tuple[Float[Tensor, "b g past k"], Float[Tensor, "b g past v"]]:
        """Return them in the dtype of the queries that will read them."""
        return self.keys.to(q.dtype), self.values.to(q.dtype)
