"""Random choices without a table: what is drawn for a block depends only on a seed and the block's
index."""

import torch
from jaxtyping import Int
from torch import Tensor

WORD = 0xFFFFFFFF  # 32 bits: products with the multiplier below fit into 64


def random_choice(
    seed: Int[Tensor, ""], heads: int, blocks: Int[Tensor, " m"], counts: Int[Tensor, " m"], num: int
) -> Int[Tensor, "h m num"]:
    """Draw, for each head and block, `num` distinct numbers below the block's count; -1 for those
    beyond the count.

    All sets of numbers are equally likely (Floyd's algorithm: if the i-th number is already drawn,
    take the one that no earlier draw could return). The generator is a hash of (seed, head, block,
    draw), so sequence length is unlimited.
    """
    counter = _hash(_hash(seed ^ torch.arange(heads, device=seed.device)[:, None]) ^ blocks)
    drawn: list[Tensor] = []
    for i in range(num):
        largest = counts - num + i
        number = _hash(counter ^ i) % (largest.clamp(min=0) + 1)
        for earlier in drawn:
            number = torch.where(number == earlier, largest, number)
        drawn.append(torch.where(largest < 0, -1, number))
    return torch.stack(drawn, dim=-1)


def _hash(x: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
    """Mix 32 bits by shifts, exclusive ors and multiplications by an odd number."""
    x = (x + 0x9E3779B9) & WORD
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & WORD
    return x ^ (x >> 16)
