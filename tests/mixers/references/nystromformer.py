"""Nyströmformer, with segments of equal length."""

from collections.abc import Mapping

from torch import Tensor, nn

from tests.mixers.reference import Reference


class Nystromformer(Reference):
    mixer = "nystrom"
    source = "`NystromformerSelfAttention` and an output map"
    package = "transformers"
    choices = (
        "no biases; segments of unequal length where the landmarks do not divide the tokens; the iteration starts from one "
        "scale per matrix, theirs by default from one per batch, by which sequences see each other"
    )
    cases = (
        {"heads": 4, "landmarks": 5, "iterations": 6, "conv_size": 33},
        {"heads": 2, "landmarks": 13, "iterations": 6, "conv_size": 3},
    )
    lengths = (1, 5, 65, 130)  # each a multiple of the landmarks, or attended to exactly

    def __init__(self, *, width: int, heads: int, landmarks: int, iterations: int, conv_size: int) -> None:
        super().__init__(width=width)
        from transformers.models.nystromformer import modeling_nystromformer

        config = modeling_nystromformer.NystromformerConfig(
            hidden_size=width, num_attention_heads=heads, num_landmarks=landmarks, conv_kernel_size=conv_size
        )
        self.layer = modeling_nystromformer.NystromformerSelfAttention(config)
        self.layer.init_option = "exact"
        for name in ("query", "key", "value"):
            nn.init.zeros_(getattr(self.layer, name).bias).requires_grad_(False)
        self.out = nn.Linear(width, width, bias=False)
        self.landmarks = landmarks

    def forward(self, x: Tensor) -> Tensor:
        # With as many landmarks as tokens, theirs attends exactly, as ours does with more.
        self.layer.seq_len = max(x.shape[1], self.landmarks)
        return self.out(self.layer(x)[0])

    def weights(self) -> Mapping[str, Tensor]:
        maps = {f"projections.{name}.weight": getattr(self.layer, name).weight for name in ("query", "key", "value")}
        return {**maps, "conv": self.layer.conv.weight[:, 0, :, 0], "out.weight": self.out.weight}
