"""Feature maps φ of linear attention: what stands for exp(q·k) is φ(q)·φ(k)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridlab.mixers.base import tag
from hybridlab.validate import choice


class Elu(nn.Module):
    """φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, 2006.16236): positive, so that a sum of weights is never zero."""

    def __init__(self, *, heads: int, width: int) -> None:
        super().__init__()
        self.features = width

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
        """Return elu(x) + 1 without the rounding of a sum that ends near zero."""
        # Autocast takes exponentials in float32.
        return (torch.relu(x) + x.clamp(max=0).exp()).to(x.dtype)


class Relu(nn.Module):
    """φ(x) = max(x, 0) + 1/1000: the generalised kernel of Performer (Choromanski et al. 2020, 2009.14794).

    Without the floor a query that no key of the past answers has weights that sum to zero. With it, it sees the mean.
    """

    floor = 1e-3

    def __init__(self, *, heads: int, width: int) -> None:
        super().__init__()
        self.features = width

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
        """Cut off what is negative."""
        return torch.relu(x) + self.floor


class SquaredRelu(Relu):
    """φ(x) = max(x, 0)² + 1/1000: sharper weights than without the square (the activation of Primer, 2109.08668)."""

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t k"]:
        """Cut off what is negative and square the rest."""
        return torch.relu(x).square() + self.floor


class Hedgehog(nn.Module):
    """φ(x) = softmax([y, -y]) with y = W x + b, learned for each head from the identity (Zhang et al. 2024, 2402.04347).

    These are the paper's exponentials [exp(y), exp(-y)], divided by their sum so that no input makes them overflow.
    """

    def __init__(self, *, heads: int, width: int) -> None:
        super().__init__()
        self.features = 2 * width
        self.weight = tag(nn.Parameter(torch.eye(width).repeat(heads, 1, 1)), initialise=False)
        self.bias = tag(nn.Parameter(torch.zeros(heads, 1, width)), decay=False, initialise=False)

    def forward(self, x: Float[Tensor, "b h t k"]) -> Float[Tensor, "b h t 2*k"]:
        """Map each head by its own matrix."""
        y = x @ self.weight.mT + self.bias
        return torch.cat([y, -y], dim=-1).softmax(-1).to(x.dtype)


FEATURE_MAPS = {"elu": Elu, "relu": Relu, "squared_relu": SquaredRelu, "hedgehog": Hedgehog}


def build_feature_map(name: str, *, heads: int, width: int) -> Elu | Relu | Hedgehog:
    """Build the map of that name for heads of that width; `features` is the width of what it returns."""
    choice(FEATURE_MAPS, feature_map=name)
    return FEATURE_MAPS[name](heads=heads, width=width)
