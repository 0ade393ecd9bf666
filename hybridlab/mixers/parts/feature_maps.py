"""Feature maps φ of linear attention, in which φ(q)·φ(k) replaces exp(q·k)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import tag
from hybridlab.validate import choice


class Elu(nn.Module):
    """φ(x) = elu(x) + 1 > 0 (Katharopoulos et al. 2020, 2006.16236): weights never sum to zero."""

    def __init__(self, *, heads: int, width: int) -> None:
        super().__init__()
        self.features = width

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
        """Return elu(x) + 1 without adding 1 to values near -1, which would round."""
        # Autocast computes exponentials in float32.
        return (torch.relu(x) + x.clamp(max=0).exp()).to(x.dtype)


class Relu(nn.Module):
    """φ(x) = max(x, 0) + 1/1000: the generalised kernel of Performer (2009.14794).

    Without the floor, weights can sum to zero; with it, a query that matches no past key reads the
    mean of the values.
    """

    floor = 1e-3

    def __init__(self, *, heads: int, width: int) -> None:
        super().__init__()
        self.features = width

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
        """Clip negative values, and add the floor."""
        return torch.relu(x) + self.floor


class SquaredRelu(Relu):
    """φ(x) = max(x, 0)² + 1/1000, Primer's activation (2109.08668): sharper weights than `Relu`."""

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
        """Clip negative values, square the rest, and add the floor."""
        return torch.relu(x).square() + self.floor


class Hedgehog(nn.Module):
    """φ(x) = softmax([y, -y]), y = W x + b, learned per head (Zhang et al. 2024, 2402.04347).

    W starts as the identity. These are the paper's exponentials [exp(y), exp(-y)], divided by their
    sum to prevent overflow.
    """

    def __init__(self, *, heads: int, width: int) -> None:
        super().__init__()
        self.features = 2 * width
        self.weight = tag(nn.Parameter(torch.eye(width).repeat(heads, 1, 1)), initialise=False)
        self.bias = tag(nn.Parameter(torch.zeros(heads, 1, width)), decay=False, initialise=False)

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t 2*k"]:
        """Map each head with its own matrix."""
        y = x @ self.weight.mT + self.bias
        return torch.cat([y, -y], dim=-1).softmax(-1).to(x.dtype)


FEATURE_MAPS = {"elu": Elu, "relu": Relu, "squared_relu": SquaredRelu, "hedgehog": Hedgehog}


def build_feature_map(name: str, *, heads: int, width: int) -> Elu | Relu | Hedgehog:
    """Build the feature map `name` for heads of this width; its `features` is the width of φ(x)."""
    choice(FEATURE_MAPS, feature_map=name)
    return FEATURE_MAPS[name](heads=heads, width=width)
