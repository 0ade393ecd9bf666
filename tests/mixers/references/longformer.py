"""Attention to a window on both sides, and to and from global tokens."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.reference import Reference


class Longformer(Reference):
    mixer = "sliding"
    source = "`LongformerSelfAttention` and an output map"
    package = "transformers"
    choices = "no biases; global tokens share the projections of the others"
    cases = (
        {"heads": 4, "window": 9, "global_tokens": 0, "rope": None, "causal": False},
        {"heads": 2, "window": 3, "global_tokens": 1, "rope": None, "causal": False},
        {"heads": 4, "window": 5, "global_tokens": 4, "rope": None, "causal": False},
    )
    lengths = (7, 33, 65, 130)  # every global token is there

    def __init__(self, *, width: int, heads: int, window: int, global_tokens: int, rope: None, causal: bool) -> None:
        super().__init__(width=width)
        from transformers.models.longformer import modeling_longformer

        self.block, self.global_tokens = 2 * (window - 1), global_tokens
        config = modeling_longformer.LongformerConfig(
            hidden_size=width,
            num_attention_heads=heads,
            attention_window=[self.block],
            attention_probs_dropout_prob=0.0,
        )
        self.layer = modeling_longformer.LongformerSelfAttention(config, layer_id=0)
        for name in ("query", "key", "value"):
            local, shared = getattr(self.layer, name), getattr(self.layer, f"{name}_global")
            nn.init.zeros_(local.bias).requires_grad_(False)
            shared.weight, shared.bias = local.weight, local.bias
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        x = F.pad(x, (0, 0, 0, -t % self.block))  # as the model does, to whole windows
        at = torch.arange(x.shape[1]).expand(len(x), -1)
        padding, shared = at >= t, at < self.global_tokens
        (y,) = self.layer(
            x,
            attention_mask=10000.0 * shared.to(x.dtype) - 10000.0 * padding.to(x.dtype),
            is_index_masked=padding,
            is_index_global_attn=shared,
            is_global_attn=self.global_tokens > 0,
        )
        return self.out(y[:, :t])

    def weights(self) -> Mapping[str, Tensor]:
        maps = {f"projections.{name}.weight": getattr(self.layer, name).weight for name in ("query", "key", "value")}
        return {**maps, "out.weight": self.out.weight}
