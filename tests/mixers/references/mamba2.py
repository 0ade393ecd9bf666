"""Mamba-2's layer in transformers."""

from collections.abc import Mapping

from torch import Tensor

from tests.mixers.initialised import initialised
from tests.mixers.reference import Reference


class Mamba2(Reference):
    mixer = "mamba2"
    source = "`Mamba2Mixer`"
    package = "transformers"
    choices = "rates start uniform in 1 to 16 as in the authors' code, there at 1, 2, 3, ..."
    cases = (
        {"state": 6, "head_width": 8, "groups": 2},
        {"state": 9, "head_width": 16, "expand": 1, "conv_size": 3, "chunk": 16},
        {"state": 1, "head_width": 4, "conv_size": 1, "chunk": 1},
    )

    def __init__(
        self,
        *,
        width: int,
        state: int,
        head_width: int,
        groups: int = 1,
        expand: int = 2,
        conv_size: int = 4,
        chunk: int = 64,
    ) -> None:
        super().__init__(width=width)
        from transformers.models.mamba2 import modeling_mamba2 as modeling

        config = modeling.Mamba2Config(
            hidden_size=width,
            state_size=state,
            head_dim=head_width,
            num_heads=expand * width // head_width,
            n_groups=groups,
            expand=expand,
            conv_kernel=conv_size,
            chunk_size=chunk,
            num_hidden_layers=1,
        )
        self.layer = initialised(modeling.Mamba2Mixer(config, layer_idx=0), modeling.Mamba2PreTrainedModel(config))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": self.layer.in_proj.weight,
            "convolution.weight": self.layer.conv1d.weight[:, 0],
            "convolution.bias": self.layer.conv1d.bias,
            "step_bias": self.layer.dt_bias,
            "log_rate": self.layer.A_log,
            "skip": self.layer.D,
            "norm": self.layer.norm.weight,
            "out.weight": self.layer.out_proj.weight,
        }
