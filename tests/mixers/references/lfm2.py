"""The gated short convolution of LFM2."""

from collections.abc import Mapping

from torch import Tensor

from tests.mixers.reference import Reference


class Lfm2(Reference):
    mixer = "gated_conv"
    source = "`Lfm2ShortConv`"
    package = "transformers"
    choices = "no biases, as in its models"
    cases = ({"conv_size": 3}, {"conv_size": 1}, {"conv_size": 9})

    def __init__(self, *, width: int, conv_size: int) -> None:
        super().__init__(width=width)
        from transformers.models.lfm2 import modeling_lfm2

        config = modeling_lfm2.Lfm2Config(
            hidden_size=width, num_hidden_layers=1, layer_types=["conv"], conv_L_cache=conv_size, conv_bias=False
        )
        self.layer = modeling_lfm2.Lfm2ShortConv(config, layer_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "in_projection.weight": self.layer.in_proj.weight,
            "convolution.weight": self.layer.conv.weight[:, 0],
            "out.weight": self.layer.out_proj.weight,
        }
