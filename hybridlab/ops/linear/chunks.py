"""Split time into chunks."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def split_chunks(x: Float[Tensor, "b h t f"], chunk: int) -> Float[Tensor, "b h n {chunk} f"]:
    """Split time into chunks; the last chunk is padded with zeros."""
    missing = -x.shape[2] % chunk
    x = F.pad(x, (0, 0, 0, missing)) if missing else x.contiguous()
    return x.unflatten(2, (-1, chunk))
