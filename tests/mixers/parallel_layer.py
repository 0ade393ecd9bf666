"""A parallel layer as one mixer, so that the contract is tested on it too."""

from hybridlab.mixers.attention.full import Full
from hybridlab.mixers.parallel import Parallel
from hybridlab.mixers.ssm.mamba2 import Mamba2


class FullAndMamba2(Parallel):
    bounded_state = False

    def __init__(self, *, width: int, causal: bool = True, combine: str = "mean", head_width: int = 32) -> None:
        mamba2 = Mamba2(width=width, causal=causal, head_width=head_width)
        super().__init__(
            width=width, parts={"full": Full(width=width, causal=causal), "mamba2": mamba2}, combine=combine
        )
