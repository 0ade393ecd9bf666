"""Mamba's layer in transformers."""

from collections.abc import Mapping

from torch import Tensor

from tests.mixers.initialised import initialised
from tests.mixers.reference import Reference


class Mamba(Reference):
    mixer = "mamba"
    source = "`MambaMixer`"
    package = "transformers"
    choices = "nothing; the bidirectional form is Vision Mamba's"
    cases = ({"state": 16}, {"state": 5, "expand": 1, "conv_size": 3, "dt_rank": 3})

    def __init__(
        self, *, width: int, state: int, expand: int = 2, conv_size: int = 4, dt_rank: int | None = None
    ) -> None:
        super().__init__(width=width)
        from transformers.models.mamba import modeling_mamba as modeling

        config = modeling.MambaConfig(
            hidden_size=width,
            state_size=state,
            expand=expand,
            conv_kernel=conv_size,
            time_step_rank="auto" if dt_rank is None else dt_rank,
            num_hidden_layers=1,
        )
        self.layer = initialised(modeling.MambaMixer(config, layer_idx=0), modeling.MambaPreTrainedModel(config))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": self.layer.in_proj.weight,
            "ahead.convolution.weight": self.layer.conv1d.weight[:, 0],
            "ahead.convolution.bias": self.layer.conv1d.bias,
            "ahead.parameter_projection.weight": self.layer.x_proj.weight,
            "ahead.step_projection.weight": self.layer.dt_proj.weight,
            "ahead.step_bias": self.layer.dt_proj.bias,
            "ahead.log_rate": self.layer.A_log.mT,
            "ahead.skip": self.layer.D,
            "out.weight": self.layer.out_proj.weight,
        }
