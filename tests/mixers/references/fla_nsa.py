"""Native sparse attention with the naive functions of flash-linear-attention."""

import sys
import warnings
from types import ModuleType
from unittest import mock

from torch import Tensor
from torch.nn import functional as F

from tests.mixers.fla_naive import naive
from tests.mixers.nsa_layer import Branches, NsaLayer

# The file imports two helpers that need Triton; the functions called here do not call them.
HELPERS = {"fla.ops.utils": "prepare_chunk_offsets", "fla.ops.utils.pooling": "mean_pooling"}


class FlaNsa(NsaLayer):
    mixer = "nsa"
    source = "`naive_nsa_compression`, `naive_nsa_topk`, `naive_nsa_selection` and `naive_parallel_attn`"
    package = "fla-core"
    compared = "op"
    choices = "φ is learnt, theirs is the mean; compressed blocks may overlap; each branch has its own keys and values"
    cases = (
        {
            "heads": 4,
            "kv_heads": 2,
            "compress_block": 8,
            "compress_stride": 8,
            "select_block": 8,
            "top_k": 5,
            "window": 7,
            "rope": 10000.0,
        },
        {
            "heads": 4,
            "kv_heads": 1,
            "compress_block": 4,
            "compress_stride": 4,
            "select_block": 4,
            "top_k": 4,
            "window": 20,
            "rope": None,
        },
    )
    lengths = (1, 7, 33, 65)

    def branches(self, of: Branches) -> tuple[Tensor, Tensor, Tensor]:
        modules = {name: ModuleType(name) for name in HELPERS}
        for name, helper in HELPERS.items():
            setattr(modules[name], helper, None)
        with mock.patch.dict(sys.modules, modules), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Flash Attention is not installed", ImportWarning)
            theirs = naive("nsa/naive.py")
        q, turned, compressed, selected, window = (
            tuple(each.transpose(1, 2) for each in y) if isinstance(y, tuple) else y.transpose(1, 2) for y in of
        )
        # Theirs counts the block that is not full too, and lets no query see it.
        whole = -(-q.shape[1] // self.block)
        keys, values = (F.pad(y, (0, 0, 0, 0, 0, whole - y.shape[1])) for y in compressed)
        scale = self.each**-0.5
        indices = theirs.naive_nsa_topk(q, keys, self.top_k, self.block, scale)
        outputs = (
            theirs.naive_nsa_compression(q, keys, values, self.block, scale)[0],
            theirs.naive_nsa_selection(turned, *selected, indices, self.block, scale),
            naive("attn/naive.py").naive_parallel_attn(turned, *window, window_size=self.latest)[0],
        )
        return tuple(o.transpose(1, 2) for o in outputs)  # type: ignore[return-value]
