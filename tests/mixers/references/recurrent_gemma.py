"""Griffin's recurrent block: RecurrentGemma's layer."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.mixers.initialised import initialised
from tests.mixers.reference import Reference


class RecurrentGemma(Reference):
    mixer = "rglru"
    source = "`RecurrentGemmaRecurrentBlock`"
    package = "transformers"
    choices = (
        "linear maps have no biases; the gradient of the decay is not clipped; by the paper's text the strongest "
        "decays start uniform in 0.9 to 0.999, in the code their eighth roots do"
    )
    cases = ({"heads": 2, "expand": 2.0}, {"heads": 1, "expand": 1.5, "conv_size": 1})

    def __init__(self, *, width: int, heads: int, expand: float, conv_size: int = 4) -> None:
        super().__init__(width=width)
        from transformers.models.recurrent_gemma import modeling_recurrent_gemma as modeling

        config = modeling.RecurrentGemmaConfig(
            hidden_size=width,
            lru_width=int(expand * width),
            num_attention_heads=heads,
            conv1d_width=conv_size,
            num_hidden_layers=1,
        )
        self.layer = initialised(
            modeling.RecurrentGemmaRecurrentBlock(config, layer_idx=0), modeling.RecurrentGemmaPreTrainedModel(config)
        )
        for each in (self.layer.linear_x, self.layer.linear_y, self.layer.linear_out):
            each.bias.requires_grad_(False).zero_()

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)[None].expand(len(x), -1)
        return self.layer(x, positions, attention_mask=None, use_cache=False)[0]

    def weights(self) -> Mapping[str, Tensor]:
        recurrence = self.layer.rg_lru
        return {
            "in_projection.weight": torch.cat([self.layer.linear_y.weight, self.layer.linear_x.weight]),
            "convolution.weight": self.layer.conv_1d.weight[:, 0],
            "convolution.bias": self.layer.conv_1d.bias,
            "recurrence.recurrence_weight": recurrence.recurrent_gate_weight,
            "recurrence.input_weight": recurrence.input_gate_weight,
            "recurrence.recurrence_bias": recurrence.recurrent_gate_bias,
            "recurrence.input_bias": recurrence.input_gate_bias,
            "recurrence.rate": recurrence.recurrent_param,
            "out.weight": self.layer.linear_out.weight,
        }
