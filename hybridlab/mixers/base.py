"""The contract of every token mixer.

Letters in shapes: b batch, t tokens of a sequence, n tokens of a chunk of it, d width of the stack,
h heads, g heads of keys and values, k and v head widths of keys and values, l past inputs of a
convolution.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.validate import positive


@runtime_checkable
class State(Protocol):
    """The decoding state of a mixer between two chunks: a `NamedTuple` of tensors, batch first.

    The caller owns it. Its tensors are copies, not slices of larger ones, so that `state_bytes` is
    the memory that it keeps.
    """

    def __iter__(self) -> Any: ...


class Mixer(nn.Module):
    """A sequence-mixing layer.

    `forward` is for training, `initial_state` and `extend` for prefill and decoding. Constructors
    take keyword arguments only: `width`, which the stack passes, and settings. A bad value raises
    `ValueError("<setting>=<value>: <what is allowed>")` (see `hybridlab.validate`); the plan adds
    the configuration path. The linear map that writes to the residual stream is called `out`: the
    initialiser draws it smaller.

    A mixer with a causal and a bidirectional form also takes `causal: bool = True`, which the stack
    passes according to its task, and keeps it as `self.causal`. Only causal forms have
    `initial_state` and `extend`: decoding cannot look ahead.

    A mixer whose initialisation depends on its depth also takes `layer_index: int = 0` and
    `layer_count: int = 1`: its place among all layers of the stack, counted from 0, which the stack
    passes.
    """

    kind: ClassVar[str]  # full | sparse | linear | low-rank | ssm | recurrence | convolution | parallel | none
    paper: ClassVar[str]  # where it was published
    causal: bool = True  # position t never depends on later ones; False on a class without a causal form
    version: ClassVar[int] = 1  # raised whenever the mathematics or the initialisation changes
    bounded_state: ClassVar[bool]  # the bytes of the state stop growing with t
    # Settings that `stack.match` may change, the coarsest first. If one may be null, the mixer has
    # an attribute of the same name with the value in use.
    free_sizes: ClassVar[tuple[str, ...]] = ()

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix whole sequences at once, from an empty past, for any t >= 1."""
        raise NotImplementedError

    def initial_state(self, batch: int, like: Tensor) -> State:
        """Return the state of an empty past for `batch` sequences, with device and dtype of `like`.

        Sums of a recurrence are kept in float32 at least. `extend` keeps the dtypes of the state.
        """
        raise NotImplementedError

    def extend(self, x: Float[Tensor, "b n d"], state: Any) -> tuple[Float[Tensor, "b n d"], State]:
        """Mix the next n >= 1 tokens; return them and the new state; `state` stays unchanged."""
        raise NotImplementedError


@runtime_checkable
class Attends(Protocol):
    """A mixer that also returns its attention weights."""

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return the weights of all tokens for the queries at some positions; each sums to 1."""
        ...


def tag(
    parameter: nn.Parameter,
    *,
    decay: bool = True,
    initialise: bool = True,
    lr: float | None = None,
    lr_factor: float = 1.0,
) -> nn.Parameter:
    """Exempt a parameter from weight decay or from the stack's initialisation, or set its rate.

    `lr_factor` times the optimiser's learning rate is the parameter's own, as the LRU's paper and
    RWKV's authors set it, and `lr` is the most that it may be. S4's authors cap the rate of time
    steps and modes so, at 0.001: in a sweep of the learning rate these parameters stay at the cap
    above it, and follow the common rate below. Warm-up and decay are those of the optimiser. Return
    the parameter.
    """
    positive(null="no cap", lr=lr)
    positive(lr_factor=lr_factor)
    parameter.takes_weight_decay = decay  # pyright: ignore[reportAttributeAccessIssue]
    parameter.takes_initialisation = initialise  # pyright: ignore[reportAttributeAccessIssue]
    parameter.highest_lr = lr  # pyright: ignore[reportAttributeAccessIssue]
    parameter.lr_factor = lr_factor  # pyright: ignore[reportAttributeAccessIssue]
    return parameter


def state_bytes(state: State) -> int:
    """Return the bytes of the tensors in a state, or in nested states."""
    return sum(part.numel() * part.element_size() if isinstance(part, Tensor) else state_bytes(part) for part in state)
