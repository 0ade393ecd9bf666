"""Mamba's layer in transformers, in one direction and in both."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tests.mixers.initialised import initialised
from tests.mixers.reference import Reference


class Mamba(Reference):
    mixer = "mamba"
    source = "`MambaMixer`"
    package = "transformers"
    choices = "nothing"
    cases = (
        {"state": 16},
        {"state": 1, "conv_size": 1},
        {"state": 5, "expand": 1, "conv_size": 3, "dt_rank": 7},
    )

    def __init__(
        self, *, width: int, state: int, expand: int = 2, conv_size: int = 4, dt_rank: int | None = None
    ) -> None:
        super().__init__(width=width)
        self.layer = build(width, state, expand, conv_size, dt_rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": self.layer.in_proj.weight,
            **weights_of_scan("ahead", self.layer),
            "out.weight": self.layer.out_proj.weight,
        }


class VisionMamba(Reference):
    """Algorithm 1 of 2401.09417: two scans between the same projections, one of them backwards."""

    mixer = "mamba"
    source = "2401.09417, with `MambaMixer` in both directions"
    package = "transformers"
    choices = "nothing"
    cases = ({"state": 3, "causal": False},)

    def __init__(self, *, width: int, state: int, causal: bool) -> None:
        super().__init__(width=width)
        assert not causal
        self.ahead, self.back = (build(width, state, 2, 4, None) for _ in range(2))
        self.back.in_proj, self.back.out_proj = self.ahead.in_proj, self.ahead.out_proj

    def forward(self, x: Tensor) -> Tensor:
        return self.ahead(x) + self.back(x.flip(1)).flip(1)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": self.ahead.in_proj.weight,
            **weights_of_scan("ahead", self.ahead),
            **weights_of_scan("back", self.back),
            "out.weight": self.ahead.out_proj.weight,
        }


def build(width: int, state: int, expand: int, conv_size: int, dt_rank: int | None) -> Any:
    from transformers.models.mamba import modeling_mamba as modeling

    config = modeling.MambaConfig(
        hidden_size=width,
        state_size=state,
        expand=expand,
        conv_kernel=conv_size,
        time_step_rank="auto" if dt_rank is None else dt_rank,
        num_hidden_layers=1,
    )
    return initialised(modeling.MambaMixer(config, layer_idx=0), modeling.MambaPreTrainedModel(config))


def weights_of_scan(name: str, layer: Any) -> dict[str, Tensor]:
    weights = {
        "convolution.weight": layer.conv1d.weight[:, 0],
        "convolution.bias": layer.conv1d.bias,
        "parameter_projection.weight": layer.x_proj.weight,
        "step_projection.weight": layer.dt_proj.weight,
        "step_bias": layer.dt_proj.bias,
        "log_rate": layer.A_log.mT,
        "skip": layer.D,
    }
    return {f"{name}.{each}": value for each, value in weights.items()}
