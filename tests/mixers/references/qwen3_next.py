"""Gated DeltaNet: Qwen3-Next's layer."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.mixers.initialised import initialised
from tests.mixers.reference import Reference


class Qwen3Next(Reference):
    mixer = "gated_delta"
    source = "`Qwen3NextGatedDeltaNet`"
    package = "transformers"
    choices = "the norm's ε is 1e-5, there 1e-6; rates and steps start as in the paper, there all step biases at 1"
    cases = (
        {"heads": 2, "expand_k": 0.75, "value_ratio": 2},
        {"heads": 4, "expand_k": 1.0, "value_ratio": 1, "conv_size": 2, "chunk": 16},
    )

    def __init__(
        self, *, width: int, heads: int, expand_k: float, value_ratio: int, conv_size: int = 4, chunk: int = 64
    ) -> None:
        super().__init__(width=width)
        from transformers.models.qwen3_next import modeling_qwen3_next as modeling

        key = int(expand_k * width) // heads
        config = modeling.Qwen3NextConfig(
            hidden_size=width,
            linear_num_key_heads=heads,
            linear_num_value_heads=heads,
            linear_key_head_dim=key,
            linear_value_head_dim=value_ratio * key,
            linear_conv_kernel_dim=conv_size,
            rms_norm_eps=1e-5,
        )
        self.layer = initialised(
            modeling.Qwen3NextGatedDeltaNet(config, layer_idx=0), modeling.Qwen3NextPreTrainedModel(config)
        )
        self.heads, self.sizes = heads, [key, key, value_ratio * key, value_ratio * key]

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def weights(self) -> Mapping[str, Tensor]:
        # Rows go head by head: a query, a key, a value and a gate; a strength and a step.
        by_head = self.layer.in_proj_qkvz.weight.unflatten(0, (self.heads, -1))
        query, key, value, gate = (each.flatten(0, 1) for each in by_head.split(self.sizes, dim=1))
        strength, step = self.layer.in_proj_ba.weight.unflatten(0, (self.heads, 2)).unbind(1)
        return {
            "in_projection.weight": torch.cat([query, key, value]),
            "convolution.weight": self.layer.conv1d.weight[:, 0],
            "strength.weight": strength,
            "step.weight": step,
            "log_rate": self.layer.A_log,
            "step_bias": self.layer.dt_bias,
            "gate.weight": gate,
            "norm": self.layer.norm.weight,
            "out.weight": self.layer.out_proj.weight,
        }
