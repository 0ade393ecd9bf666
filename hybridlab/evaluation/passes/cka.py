"""Linear CKA: how alike several descriptions of the same samples are, up to a rotation and a
scale."""

from collections.abc import Iterator
from itertools import combinations

from jaxtyping import Float
from torch import Tensor


class LinearCKA:
    """‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features X and Y, by Frobenius norms (1905.00414, section
    3).

    Summed up over samples in float64, so that nothing of the size samples by samples is needed.
    With few samples for the width of the features it is too high: noise is alike where everything
    fits.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: dict[str, Tensor] = {}
        self._products: dict[tuple[str, str], Tensor] = {}

    def add(self, features: dict[str, Float[Tensor, "n d"]]) -> None:
        """Take in more samples: each set of features by its name, of the same samples."""
        wide = {name: values.double() for name, values in features.items()}
        self.count += len(next(iter(wide.values())))
        for name, values in wide.items():
            self._sums[name] = self._sums.get(name, 0) + values.sum(0)
        for pair in [*((name, name) for name in wide), *combinations(wide, 2)]:
            first, second = (wide[name] for name in pair)
            self._products[pair] = self._products.get(pair, 0) + first.mT @ second

    def pairs(self) -> Iterator[tuple[tuple[str, str], float]]:
        """Yield the likeness of each two sets, 0 to 1; nothing where one is 0 throughout."""
        norms = {pair: float(self._centred(pair).norm()) for pair in self._products}
        for first, second in combinations(self._sums, 2):
            if scale := norms[first, first] * norms[second, second]:
                yield (first, second), norms[first, second] ** 2 / scale

    def _centred(self, pair: tuple[str, str]) -> Float[Tensor, "d e"]:
        first, second = (self._sums[name] for name in pair)
        return self._products[pair] - first[:, None] * second / self.count
