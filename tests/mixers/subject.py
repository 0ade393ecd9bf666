"""One mixer under test, as the contract's tests need it."""

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
FROM_THE_STACK = ("width", "causal", "layer_index", "layer_count")


@dataclass(frozen=True)
class Subject:
    """A mixer as its YAML declares it, in its causal or its bidirectional form."""

    file: Path
    causal: bool

    @classmethod
    def forms(cls, file: Path) -> list[Self]:
        """Return the mixer of a YAML once for each of its forms."""
        causal = cls(file, True)
        has_both = "causal" in causal.signature
        return [causal, cls(file, False)] if has_both else [cls(file, causal.cls.causal)]

    @property
    def name(self) -> str:
        return self.file.stem if self.causal or not self.cls.causal else f"{self.file.stem}-bidirectional"

    @property
    def given(self) -> dict[str, Any]:
        """What the stack passes to the constructor."""
        every = dict(zip(FROM_THE_STACK, (WIDTH, self.causal, 1, 4), strict=True))
        return {name: value for name, value in every.items() if name in self.signature}

    @cached_property
    def settings(self) -> dict[str, Any]:
        return OmegaConf.to_container(OmegaConf.load(self.file))  # type: ignore[return-value]

    @property
    def own_settings(self) -> dict[str, Any]:
        return {key: value for key, value in self.settings.items() if key != "_target_"}

    @property
    def cls(self) -> type[Mixer]:
        return get_class(self.settings["_target_"])  # type: ignore[return-value]

    @property
    def signature(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.cls).parameters)

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Mixer:
        """Build the mixer with weights large enough for every path to matter."""
        torch.manual_seed(seed)
        mixer = instantiate(self.settings, **self.given).to(dtype)
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return mixer

    @property
    def counts(self) -> dict[str, int]:
        """The integer settings: windows, block sizes, heads."""
        return {k: v for k, v in self.own_settings.items() if isinstance(v, int) and not isinstance(v, bool)}

    @property
    def lengths(self) -> list[int]:
        """Lengths at which behaviour can change: odd ones, and those near an integer setting."""
        around = {n + d for n in self.counts.values() for d in (-1, 0, 1)} | {2 * n + 1 for n in self.counts.values()}
        return sorted({1, 2, 7, 16, 33} | {n for n in around if 1 <= n <= LONGEST})

    @property
    def long(self) -> int:
        """A length beyond every integer setting, up to LONGEST."""
        return min(max([16, *self.counts.values()]) * 2 + 3, LONGEST)


def tokens(batch: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=generator).to(dtype)


def in_chunks(mixer: Mixer, x: Tensor, sizes: list[int]) -> tuple[Tensor, Any]:
    """Mix sequences chunk by chunk."""
    state, outputs = mixer.initial_state(x.shape[0], x), []
    for chunk in x.split(sizes, dim=1):
        y, state = mixer.extend(chunk, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state
