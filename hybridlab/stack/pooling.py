"""How targets are read off the residual stream: from where, and what the head is given of it."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hybridlab.ops.attention.sinusoidal_encoding import sinusoidal_encoding


class Reading(nn.Module):
    """A decoder's: a target is read at its own position. `features` is the width of what the head is given."""

    by_position = True  # no position has a part in the prediction at another, but through the layers

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width

    def pooled(
        self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"] | Float[Tensor, "b d"] | Float[Tensor, "b 2 d"]:
        """Return what the targets are read from, in the order of the targets."""
        return x

    def forward(self, x: Float[Tensor, "n *p d"]) -> Float[Tensor, "n f"]:
        """Return what the head is given for some rows of what is pooled, after the final norm."""
        return x

    def positions(
        self, scored: Bool[Tensor, "*b t"] | Bool[Tensor, "*b"], real: Bool[Tensor, "*b t"]
    ) -> Bool[Tensor, "*b t"]:
        """Say from which positions targets are read, given which of them are scored and which positions are not padding."""
        return scored


class RowMean(Reading):
    """An encoder's: the class of a row is read off the mean over the row, padding left out."""

    by_position = False

    def pooled(self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        """Return the mean of each row."""
        return x.mean(1) if documents is None else _mean(x, documents >= 0)

    def positions(self, scored: Bool[Tensor, "*b"], real: Bool[Tensor, "*b t"]) -> Bool[Tensor, "*b t"]:
        """Say all but padding."""
        return real


class PairOfMeans(RowMean):
    """A dual encoder's: the means of documents 0 and 1 of a row, u and v, are compared: [u, v, u * v, u - v].

    As in the Long Range Arena (arXiv:2011.04006).
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.features = 4 * width

    def pooled(self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b 2 d"]:
        """Return both means of each row."""
        assert documents is not None, "the rows of a pair number its documents"
        return torch.stack([_mean(x, documents == number) for number in (0, 1)], dim=1)

    def forward(self, x: Float[Tensor, "*b 2 d"]) -> Float[Tensor, "*b f"]:
        """Compare."""
        one, other = x.unbind(-2)
        return torch.cat([one, other, one * other, one - other], dim=-1)


class Bottleneck(Reading):
    """An autoencoder's: every target of a row is read off the last position's vector and an encoding of the target's place.

    The encoding is added, and a perceptron of two layers as wide as the stack decodes the sum, as in the code of MAD
    (arXiv:2403.17844).
    """

    by_position = False

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
        """Return the last vector of each row, once for each place."""
        assert documents is None, "a bottleneck is read at the end of a row: rows are of one document, without padding"
        length, width = x.shape[1:]
        return x[:, -1:] + sinusoidal_encoding(length, width, x.device).to(x.dtype)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Decode."""
        return self.perceptron(x)

    def positions(self, scored: Bool[Tensor, "*b t"], real: Bool[Tensor, "*b t"]) -> Bool[Tensor, "*b t"]:
        """Say the last of each row that has a target."""
        last = torch.zeros_like(real)
        last[..., -1] = scored.any(-1)
        return last


def _mean(x: Float[Tensor, "b t d"], chosen: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
    """Average over the chosen tokens of each row."""
    weight = chosen.to(x.dtype)[..., None]
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)
