"""Nyströmformer: attention through landmarks."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.errors import ConfigError
from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.nystrom_attention import nystrom_attention
from hybridlab.ops.conv.centred_conv import centred_conv
from hybridlab.validate import whole


class Nystrom(Mixer):
    """o = softmax(q k̃ᵀ) softmax(q̃ k̃ᵀ)⁺ softmax(q̃ kᵀ) v + conv(v), with scores divided by √k.

    The landmarks q̃ and k̃ are means of segments. Bidirectional only: the landmarks and the
    convolution see tokens on both sides. The pseudo-inverse is approximated in a few iterations; a
    sequence with no more tokens than landmarks is attended to exactly. Positions enter through the
    convolution alone, one filter of `conv_size` taps per head: a mean of rotated keys would be no
    landmark.
    """

    kind = "low-rank"
    paper = "Xiong et al. 2021, 2102.03902"
    causal = False
    bounded_state = False
    free_sizes = ("landmarks",)

    def __init__(
        self, *, width: int, heads: int = 4, landmarks: int = 64, iterations: int = 6, conv_size: int = 33
    ) -> None:
        super().__init__()
        whole(landmarks=landmarks, iterations=iterations, conv_size=conv_size)
        if conv_size % 2 == 0:
            raise ConfigError(f"conv_size={conv_size}: must be odd: as many taps before a token as after it")
        self.landmarks, self.iterations = landmarks, iterations
        self.projections = QueryKeyValue(width=width, heads=heads)
        reach = conv_size**-0.5
        self.conv = tag(nn.Parameter(torch.empty(heads, conv_size).uniform_(-reach, reach)), initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token through the landmarks, and convolve the values."""
        q, k, v = self.projections(x)
        o = nystrom_attention(q, k, v, self.landmarks, self.iterations)
        return self.out(join_heads(o + centred_conv(v, self.conv)))
