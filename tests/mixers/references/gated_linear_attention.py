"""Gated linear attention with flash-linear-attention's recurrence."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from tests.mixers.fla_naive import naive
from tests.mixers.reference import Reference


class GatedLinearAttention(Reference):
    """Decays α = σ(x W¹ W² + b)^(1/16), an output gate after the norm."""

    mixer = "gla"
    source = "`naive_recurrent_gla` in the layer of 2312.06635"
    package = "fla-core"
    compared = "op"
    choices = "an RMS norm as in flash-linear-attention, for the paper's layer norm; no bias in the output gate"
    cases = (
        {"heads": 2},
        {"heads": 4, "expand_k": 1.0, "expand_v": 2.0, "decay_rank": 3, "temperature": 1.0, "chunk": 16},
        {"heads": 1, "temperature": 0.5, "chunk": 1},
    )

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        decay_rank: int = 16,
        temperature: float = 16.0,
        chunk: int = 64,
    ) -> None:
        super().__init__(width=width)
        self.heads, self.temperature = heads, temperature
        keys, values = int(expand_k * width), int(expand_v * width)
        self.query, self.key = (nn.Linear(width, keys, bias=False) for _ in range(2))
        self.value, self.gate = (nn.Linear(width, values, bias=False) for _ in range(2))
        self.down, self.up = nn.Linear(width, decay_rank, bias=False), nn.Linear(decay_rank, keys)
        self.norm = nn.RMSNorm(values // heads, eps=1e-5)
        self.out = nn.Linear(values, width, bias=False)
        self.recurrence = naive("gla/naive.py").naive_recurrent_gla

    def forward(self, x: Tensor) -> Tensor:
        log_decay = F.logsigmoid(self.up(self.down(x))) / self.temperature
        q, k, v, g = (
            each.unflatten(-1, (self.heads, -1)) for each in (self.query(x), self.key(x), self.value(x), log_decay)
        )
        o, _ = self.recurrence(q, k, v, g)
        return self.out(self.norm(o).flatten(2) * F.silu(self.gate(x)))

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "query.weight": self.query.weight,
            "key.weight": self.key.weight,
            "value.weight": self.value.weight,
            "decay.0.weight": self.down.weight,
            "decay.1.weight": self.up.weight,
            "decay_bias": self.up.bias,
            "gate.weight": self.gate.weight,
            "norm": self.norm.weight,
            "out.weight": self.out.weight,
        }
