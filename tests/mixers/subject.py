"""What the contract asks about one mixer under test."""

import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from torch import Tensor

from hybridlab.mixers.base import Mixer

CONF = Path(__file__).parents[2] / "conf" / "mixers"
WIDTH = 64
LONGEST = 600


@dataclass(frozen=True)
class Subject:
    """A mixer as its YAML declares it, in its causal or its bidirectional form."""

    file: Path
    causal: bool

    @classmethod
    def forms(cls, file: Path) -> list[Self]:
        """Return the mixer of a YAML once for each form that it has."""
        causal = cls(file, True)
        has_both = "causal" in causal.signature
        return [causal, cls(file, False)] if has_both else [cls(file, causal.cls.causal)]

    @property
    def name(self) -> str:
        return self.file.stem if self.causal or not self.cls.causal else f"{self.file.stem}-bidirectional"

    @property
    def given(self) -> dict[str, Any]:
        """What the stack gives to its constructor."""
        return {"width": WIDTH, "causal": self.causal} if "causal" in self.signature else {"width": WIDTH}

    @cached_property
    def settings(self) -> dict[str, Any]:
        return OmegaConf.to_container(OmegaConf.load(self.file))  # type: ignore[return-value]

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        return {key: value for key, value in self.settings.items() if key != "_target_"}

    @property
    def cls(self) -> type[Mixer]:
        return get_class(self.settings["_target_"])  # type: ignore[return-value]

    @property
    def signature(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.cls).parameters)

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Mixer:
        """Build it with weights large enough that every path of it matters."""
        torch.manual_seed(seed)
        mixer = instantiate(self.settings, **self.given).to(dtype)
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return mixer

    @property
    def counts(self) -> dict[str, int]:
        """The integer hyper-parameters: windows, block sizes, heads."""
        return {k: v for k, v in self.hyper_parameters.items() if isinstance(v, int) and not isinstance(v, bool)}

    @property
    def lengths(self) -> list[int]:
        """Lengths at which something may change: odd ones, and those around every integer hyper-parameter."""
        around = {n + d for n in self.counts.values() for d in (-1, 0, 1)} | {2 * n + 1 for n in self.counts.values()}
        return sorted({1, 2, 7, 16, 33} | {n for n in around if 1 <= n <= LONGEST})

    @property
    def long(self) -> int:
        """A length that goes beyond every integer hyper-parameter, as far as the tests go."""
        return min(max([16, *self.counts.values()]) * 2 + 3, LONGEST)


def tokens(batch: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=generator).to(dtype)


def in_pieces(mixer: Mixer, x: Tensor, sizes: list[int]) -> tuple[Tensor, Any]:
    """Mix a row piece by piece."""
    state, outputs = mixer.initial_state(x.shape[0], x), []
    for piece in x.split(sizes, dim=1):
        y, state = mixer.extend(piece, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state
