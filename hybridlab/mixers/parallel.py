"""Several mixers side by side in one layer."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import Mixer, State, tag
from hybridlab.validate import choice

COMBINATIONS = ("mean", "gate")


class ParallelState(NamedTuple):
    """The state of each part, in their order."""

    parts: tuple[State, ...]


class Parallel(Mixer):
    """y = W_out Σ_i w_i norm_i(mixer_i(x)): all parts read the same x, and add up.

    An RMS norm brings the outputs of the parts to one scale. With `combine: mean` the weights w_i
    are equal, and the scales β_i of the norms learn how much each channel takes from each part
    (Hymba, equation 1). With `gate` each token has weights of its own, the softmax of a linear map
    of x. The stack passes the parts, already built. A part that is ablated adds nothing.
    """

    kind = "parallel"
    paper = "Dong et al. 2024 (Hymba), 2411.13676; Falcon-H1, 2507.22448"

    def __init__(self, *, width: int, parts: Mapping[str, Mixer], combine: str = "mean") -> None:
        super().__init__()
        choice(COMBINATIONS, combine=combine)
        self.parts = nn.ModuleDict(dict(parts))
        self.causal = all(part.causal for part in parts.values())
        self.bounded_state = all(part.bounded_state for part in parts.values())  # type: ignore[misc]
        self.scales = tag(nn.Parameter(torch.ones(len(parts), width)), decay=False, initialise=False)
        self.gate = nn.Linear(width, len(parts)) if combine == "gate" else None
        self.out = nn.Linear(width, width, bias=False)

    bounded_state: ClassVar[bool]

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences with every part."""
        return self._combine(x, [part(x) for part in self.parts.values()])

    def initial_state(self, batch: int, like: Tensor) -> ParallelState:
        """Return the initial state of every part."""
        parts: Any = self.parts.values()
        return ParallelState(tuple(part.initial_state(batch, like) for part in parts))

    def extend(self, x: Float[Tensor, "b n d"], state: ParallelState) -> tuple[Float[Tensor, "b n d"], ParallelState]:
        """Extend every part by the same chunk."""
        parts: Any = self.parts.values()
        extended = [part.extend(x, past) for part, past in zip(parts, state.parts, strict=True)]
        return self._combine(x, [y for y, _ in extended]), ParallelState(tuple(after for _, after in extended))

    def _combine(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        stacked = torch.stack(outputs, dim=-2)  # b t parts d
        normed = nn.functional.rms_norm(stacked, stacked.shape[-1:], eps=1e-5) * self.scales
        if self.gate is None:
            return self.out(normed.mean(-2))
        weights = self.gate(x).softmax(-1).to(normed.dtype)
        return self.out((weights[..., None] * normed).sum(-2))
