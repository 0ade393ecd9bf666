"""Nyström's method for the keys of earlier blocks, one query at a time."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tests.mixers.reference import Reference


class BlockwiseNystrom(Reference):
    """Softmax attention in two blocks; κ(q, L) (κ(L, L) + ridge)⁻¹ κ(L, k) for κ(q, k) before.

    The kernel is scaled so that κ(L, L) has a diagonal of 1. The total of these weights is at least
    1/20 of that of the absolute values of their terms.
    """

    mixer = "nystrom_causal"
    source = "its own definition, after 2102.03902: no paper has it"
    choices = "no shared maximum in the exponents, no convolution of the values"
    cases = (
        {"heads": 2, "block": 8, "landmarks": 4, "ridge": 1e-3},
        {"heads": 4, "block": 5, "landmarks": 30, "ridge": 1e-2},
        {"heads": 1, "block": 4, "landmarks": 3, "ridge": 0.1},
        {"heads": 2, "block": 20, "landmarks": 1, "ridge": 1e-3},
    )
    lengths = (1, 7, 33, 50)

    def __init__(self, *, width: int, heads: int, block: int, landmarks: int, ridge: float) -> None:
        super().__init__(width=width)
        self.heads, self.block, self.landmarks, self.ridge = heads, block, landmarks, ridge
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        q, k = (each / (each.square().mean(-1, keepdim=True) + 1e-6).sqrt() for each in (q, k))
        outputs = []
        for now in range(x.shape[1]):
            near = max(0, now // self.block - 1) * self.block
            one = q[:, :, now, None]
            weights = kernel(one, k[:, :, near : now + 1])
            total, far, sizes = (weights @ v[:, :, near : now + 1]), 0, 0
            mass = weights.sum(-1, keepdim=True)
            for start in range(0, near, self.block):
                weights, size = self.through_landmarks(one, k, start)
                total = total + weights @ v[:, :, start : start + self.block]
                far, sizes = far + weights.sum(-1, keepdim=True), sizes + size
            if near:
                mass = mass + torch.maximum(far, sizes / 20)
            outputs.append((total / mass)[:, :, 0])
        return self.out(torch.stack(outputs, dim=1).flatten(2))

    def through_landmarks(self, one: Tensor, k: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Return the weights of the block that begins at `start`, whose landmark is the last to
        count, and the sum of the absolute values of their terms.

        The terms are those of the Cholesky factors, which later landmarks leave as they are.
        """
        count = min(start // self.block + 1, self.landmarks)
        landmarks = k[:, :, : count * self.block].unflatten(2, (count, self.block)).mean(3)
        ridge = self.ridge * torch.eye(count, dtype=k.dtype, device=k.device)
        own = kernel(landmarks, landmarks)
        unit = torch.diag_embed(own.diagonal(dim1=-2, dim2=-1) ** -0.5)
        whitening = torch.linalg.inv(torch.linalg.cholesky(unit @ own @ unit + ridge)) @ unit
        of_query = whitening @ kernel(landmarks, one)
        of_keys = whitening @ kernel(landmarks, k[:, :, start : start + self.block])
        return of_query.mT @ of_keys, (of_query.abs().mT @ of_keys.abs()).sum(-1, keepdim=True)

    def weights(self) -> Mapping[str, Tensor]:
        return {
            "projections.query.weight": self.query.weight,
            "projections.key.weight": self.key.weight,
            "projections.value.weight": self.value.weight,
            "out.weight": self.out.weight,
        }


def kernel(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(a @ b.mT / a.shape[-1] ** 0.5)
