"""Kimi Delta Attention: Kimi Linear's layer."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.mixers.initialised import initialised
from tests.mixers.reference import Reference


class KimiLinear(Reference):
    mixer = "kda"
    source = "`KimiLinearDeltaAttention`"
    package = "transformers"
    choices = "nothing; `negative_eigenvalues` is flash-linear-attention's setting"
    cases = ({"heads": 2}, {"heads": 4, "conv_size": 2, "chunk": 16})

    def __init__(self, *, width: int, heads: int, conv_size: int = 4, chunk: int = 32) -> None:
        super().__init__(width=width)
        from transformers.models.kimi_linear import modeling_kimi_linear as modeling

        config = modeling.KimiLinearConfig(
            hidden_size=width,
            linear_num_heads=heads,
            linear_head_dim=width // heads,
            linear_conv_kernel_dim=conv_size,
            num_hidden_layers=1,
        )
        self.layer = initialised(
            modeling.KimiLinearDeltaAttention(config, layer_idx=0), modeling.KimiLinearPreTrainedModel(config)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def weights(self) -> Mapping[str, Tensor]:
        layer, decay = self.layer, self.layer.forget_gate
        return {
            "in_projection.weight": torch.cat([layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight]),
            "convolution.weight": layer.conv1d.weight[:, 0],
            "strength.weight": layer.b_proj.weight,
            "step.0.weight": decay.f_a_proj.weight,
            "step.1.weight": decay.f_b_proj.weight,
            "log_rate": decay.A_log.flatten(),
            "step_bias": decay.dt_bias,
            "gate.0.weight": layer.g_a_proj.weight,
            "gate.1.weight": layer.g_b_proj.weight,
            "norm": layer.o_norm.weight,
            "out.weight": layer.o_proj.weight,
        }
