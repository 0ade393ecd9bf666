"""Native sparse attention, one token at a time."""

import torch
from torch import Tensor

from tests.mixers.masked_attention import attended
from tests.mixers.nsa_layer import Branches, NsaLayer


class NativeSparseAttention(NsaLayer):
    mixer = "nsa"
    source = "2502.11089, equations 5 to 12"
    choices = (
        "φ, which the paper leaves open, is a weighted sum over the block and an MLP of it; the compressed branch has no "
        "positions; the first block and the latest two are always selected, as the paper's settings do"
    )
    cases = (
        {
            "heads": 4,
            "kv_heads": 2,
            "compress_block": 8,
            "compress_stride": 4,
            "select_block": 8,
            "top_k": 4,
            "window": 5,
            "rope": 10000.0,
        },
        {
            "heads": 4,
            "kv_heads": 1,
            "compress_block": 4,
            "compress_stride": 4,
            "select_block": 8,
            "top_k": 3,
            "window": 64,
            "rope": 10000.0,
        },
        {
            "heads": 2,
            "kv_heads": 1,
            "compress_block": 4,
            "compress_stride": 2,
            "select_block": 4,
            "top_k": 6,
            "window": 1,
            "rope": None,
        },
        {
            "heads": 2,
            "kv_heads": 2,
            "compress_block": 1,
            "compress_stride": 1,
            "select_block": 4,
            "top_k": 5,
            "window": 9,
            "rope": 100.0,
        },
    )
    lengths = (1, 7, 33, 65)

    def branches(self, of: Branches) -> tuple[Tensor, Tensor, Tensor]:
        t = of.q.shape[2]
        keys, values = (self.repeated(y) for y in of.compressed)
        ends = [start + self.length - 1 for start in range(0, t - self.length + 1, self.stride)]
        finished = torch.tensor([[end <= i for end in ends] for i in range(t)], dtype=torch.bool).view(
            1, 1, t, len(ends)
        )
        latest = torch.tensor([[i - self.latest < j <= i for j in range(t)] for i in range(t)])[None, None]
        return (
            attended(of.q, keys, values, finished),
            attended(of.turned, *(self.repeated(y) for y in of.selected), self.selection(of.q, keys, ends)),
            attended(of.turned, *(self.repeated(y) for y in of.window), latest),
        )

    def selection(self, q: Tensor, keys: Tensor, ends: list[int]) -> Tensor:
        """Return the tokens in the blocks that each token selects, b h t t.

        The weights of the compressed blocks (equation 8) go to the blocks that they overlap, for
        each of their tokens (9), and are added over the heads of a group (10); the first block, the
        latest two and the best of the others are selected (11, 12).
        """
        b, h, t, _ = q.shape
        seen = torch.zeros(b, h, t, t, dtype=torch.bool)
        scores = torch.exp(torch.einsum("bhik,bhmk->bhim", q, keys).detach() / self.each**0.5).tolist()
        for row in range(b):
            for i in range(t):
                own, finished = i // self.block, [m for m, end in enumerate(ends) if end <= i]
                for group in range(self.groups):
                    heads = range(group * h // self.groups, (group + 1) * h // self.groups)
                    importance = [0.0] * (own + 1)
                    for head in heads:
                        total = sum(scores[row][head][i][m] for m in finished)
                        for m in finished:
                            for j in range(ends[m] - self.length + 1, ends[m] + 1):
                                importance[j // self.block] += scores[row][head][i][m] / total
                    fixed = {0, max(own - 1, 0), own}
                    others = sorted(set(range(own)) - fixed, key=lambda block: -importance[block])
                    for block in (*fixed, *others[: self.top_k - 3]):
                        seen[row, heads.start : heads.stop, i, block * self.block : (block + 1) * self.block] = True
        return seen.tril()
