"""Gated DeltaNet: OLMo Hybrid's layer; and DeltaNet: the same without decay."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.mixers.initialised import initialised
from tests.mixers.reference import Reference


class OlmoHybrid(Reference):
    mixer = "gated_delta"
    source = "`OlmoHybridGatedDeltaNet`"
    package = "transformers"
    choices = "nothing"
    cases = (
        {"heads": 2, "expand_k": 0.75, "value_ratio": 2, "negative_eigenvalues": True},
        {"heads": 1, "expand_k": 0.5, "value_ratio": 3, "negative_eigenvalues": False, "chunk": 7},
        {"heads": 1, "expand_k": 1.0, "value_ratio": 1, "negative_eigenvalues": False, "conv_size": 1, "chunk": 1},
    )

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        expand_k: float,
        value_ratio: int,
        negative_eigenvalues: bool,
        conv_size: int = 4,
        chunk: int = 64,
    ) -> None:
        super().__init__(width=width)
        key = int(expand_k * width) // heads
        self.layer = build(width, heads, key, value_ratio, negative_eigenvalues, conv_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            **shared_weights(self.layer),
            "step.weight": self.layer.a_proj.weight,
            "log_rate": self.layer.A_log,
            "step_bias": self.layer.dt_bias,
        }


class OlmoHybridWithoutDecay(Reference):
    mixer = "delta"
    source = "`OlmoHybridGatedDeltaNet` with its decay fixed at 1"
    package = "transformers"
    choices = "the output gate is a setting, and off; OLMo Hybrid has it"
    cases = (
        {"heads": 2, "gate": True, "negative_eigenvalues": True},
        {"heads": 4, "gate": True, "negative_eigenvalues": False, "chunk": 7},
        {"heads": 1, "gate": True, "negative_eigenvalues": True, "conv_size": 1, "chunk": 1},
    )

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        gate: bool,
        negative_eigenvalues: bool,
        conv_size: int = 4,
        chunk: int = 64,
    ) -> None:
        super().__init__(width=width)
        assert gate, "theirs always has one"
        self.layer = build(width, heads, width // heads, 1, negative_eigenvalues, conv_size)
        # exp(A_log) is 0 for it.
        self.layer.A_log.requires_grad_(False).fill_(-torch.inf)
        for each in (self.layer.dt_bias, self.layer.a_proj.weight):
            each.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def weights(self) -> Mapping[str, Tensor]:
        return shared_weights(self.layer)


def build(width: int, heads: int, key: int, value_ratio: int, negative_eigenvalues: bool, conv_size: int) -> Any:
    from transformers.models.olmo_hybrid import modeling_olmo_hybrid as modeling

    config = modeling.OlmoHybridConfig(
        hidden_size=width,
        linear_num_key_heads=heads,
        linear_num_value_heads=heads,
        linear_key_head_dim=key,
        linear_value_head_dim=value_ratio * key,
        linear_allow_neg_eigval=negative_eigenvalues,
        linear_conv_kernel_dim=conv_size,
    )
    return initialised(
        modeling.OlmoHybridGatedDeltaNet(config, layer_idx=0), modeling.OlmoHybridPreTrainedModel(config)
    )


def shared_weights(layer: Any) -> dict[str, Tensor]:
    return {
        "in_projection.weight": torch.cat([layer.q_proj.weight, layer.k_proj.weight, layer.v_proj.weight]),
        "convolution.weight": layer.conv1d.weight[:, 0],
        "strength.weight": layer.b_proj.weight,
        "gate.weight": layer.g_proj.weight,
        "norm": layer.o_norm.weight,
        "out.weight": layer.o_proj.weight,
    }
