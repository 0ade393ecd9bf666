"""From the residual stream to what the head reads, for each `Readout`.

Letters in shapes: b batch (sequences), t time (tokens), d width of the stack, f width of the
head's input, p and q any number of axes.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hybridlab.ops.attention.sinusoidal_encoding import sinusoidal_encoding
from hybridlab.stack.readout import Readout


class Pooling(nn.Module):
    """The base class: `pooled` before the final norm, `forward` between the norm and the head.

    `features` is the width of the head's input.
    """

    by_position = False  # whether a prediction depends on other positions only through the layers

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width

    def pooled(
        self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"] | Float[Tensor, "b d"] | Float[Tensor, "b 2 d"]:
        """Return the vectors that the targets are predicted from, in the order of the targets."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "*p d"]) -> Float[Tensor, "*q f"]:
        """Return the head's input for some of the pooled vectors, after the final norm."""
        return x

    def positions(self, scored: Bool[Tensor, "*b"], real: Bool[Tensor, "*b t"]) -> Bool[Tensor, "*b t"]:
        """Return the positions that are read for the `scored` targets.

        By default these are all `real` positions, that is, all without padding.
        """
        return real


class EveryPosition(Pooling):
    """Each target is predicted from the vector of its own position."""

    by_position = True

    def pooled(self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        """Return the residual stream as it is."""
        return x

    def positions(self, scored: Bool[Tensor, "*b t"], real: Bool[Tensor, "*b t"]) -> Bool[Tensor, "*b t"]:
        """Return the positions of the scored targets."""
        return scored


class SequenceMean(Pooling):
    """The class of a sequence is predicted from the mean over its tokens, padding left out."""

    def pooled(self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        """Return the mean of each sequence."""
        return x.mean(1) if documents is None else _mean(x, documents >= 0)


class PairOfMeans(Pooling):
    """The class of a pair is predicted from the means u and v of a sequence's documents 0 and 1.

    The head reads [u, v, u * v, u - v], as in the Long Range Arena (arXiv:2011.04006).
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.features = 4 * width

    def pooled(self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b 2 d"]:
        """Return the means of both documents of each sequence."""
        assert documents is not None, "a pair needs the number of each token's document"
        return torch.stack([_mean(x, documents == number) for number in (0, 1)], dim=1)

    def forward(self, x: Float[Tensor, "*b 2 d"]) -> Float[Tensor, "*b 4*d"]:
        """Compare the two means."""
        one, other = x.unbind(-2)
        return torch.cat([one, other, one * other, one - other], dim=-1)


class LastPosition(Pooling):
    """Each target is predicted from the vector of the last position and its own position.

    The sinusoidal encoding of the target's position is added to the vector, and a perceptron of two
    layers as wide as the stack decodes the sum, as in the code of MAD (arXiv:2403.17844).
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.RMSNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.RMSNorm(width),
        )

    def pooled(self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        """Return each sequence's last vector plus the encoding of each position."""
        assert documents is None, "the last position stands for its whole sequence: one document, without padding"
        length, width = x.shape[1:]
        return x[:, -1:] + sinusoidal_encoding(length, width, x.device).to(x.dtype)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Decode."""
        return self.perceptron(x)

    def positions(self, scored: Bool[Tensor, "*b t"], real: Bool[Tensor, "*b t"]) -> Bool[Tensor, "*b t"]:
        """Return the last position of each sequence that has a scored target."""
        last = torch.zeros_like(real)
        last[..., -1] = scored.any(-1)
        return last


POOLINGS: dict[Readout, type[Pooling]] = {
    Readout.EVERY_POSITION: EveryPosition,
    Readout.SEQUENCE_MEAN: SequenceMean,
    Readout.PAIR_OF_MEANS: PairOfMeans,
    Readout.LAST_POSITION: LastPosition,
}


def _mean(x: Float[Tensor, "b t d"], chosen: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """Average over the chosen tokens of each sequence."""
    weight = chosen.to(x.dtype)[..., None]
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)
