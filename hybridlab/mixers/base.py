"""The contract that every token mixer keeps.

Letters in shapes: b batch, t time (tokens of a row), n tokens of a piece, d width of the stack, h heads.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn


@runtime_checkable
class State(Protocol):
    """What a mixer remembers between two pieces: a `NamedTuple` of tensors, batch first, owned by the caller.

    It holds copies, not slices of larger tensors, so that `state_bytes` is what it really keeps in memory.
    """

    def __iter__(self) -> Any: ...


class Mixer(nn.Module):
    """A sequence-mixing layer: `forward` for training, `initial_state` and `extend` for decoding and prefill.

    Constructors are keyword-only, take `width` (given by the stack) and refuse what they don't know. A bad value raises
    `ValueError("<hyper-parameter>=<value>: <what is allowed>")`; the plan adds the config path. The linear map that
    writes to the residual stream, if there is one, is called `out`: the initialiser draws it smaller.

    A mixer that has a causal and a bidirectional form also takes `causal: bool = True`, given by the stack as its task asks,
    and keeps it as `self.causal`. `initial_state` and `extend` belong to causal forms: what is decoded cannot look ahead.
    """

    kind: ClassVar[str]  # full | sparse | linear | low-rank | ssm | recurrence | convolution | parallel | none
    paper: ClassVar[str]  # where it was published
    causal: bool = True  # position t never depends on what comes after t; False on a class that has no causal form
    bounded_state: ClassVar[bool]  # the bytes of the state stop growing with t
    # Hyper-parameters that `stack.match` may move, the coarsest first. Of one that may be null, the mixer has an attribute of
    # the same name: what it chose.
    free_sizes: ClassVar[tuple[str, ...]] = ()

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Mix a whole row at once, from an empty past, for any t >= 1."""
        raise NotImplementedError

    def initial_state(self, batch: int, like: Tensor) -> State:
        """Return the state of an empty past for `batch` rows, on the device of `like` and in its dtype.

        What a recurrence sums up is kept in float32 at least. `extend` returns the dtypes that it was given.
        """
        raise NotImplementedError

    def extend(self, x: Float[Tensor, "b n d"], state: Any) -> tuple[Float[Tensor, "b n d"], State]:
        """Mix the next n >= 1 tokens of each row; return them with the state after them. `state` is not changed."""
        raise NotImplementedError


@runtime_checkable
class Attends(Protocol):
    """A mixer that also says how much its tokens read of one another."""

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return, for the tokens at some positions of whole rows, the weights of all tokens: they add up to 1."""
        ...


def tag(parameter: nn.Parameter, *, decay: bool = True, initialise: bool = True) -> nn.Parameter:
    """Mark a parameter as taking no weight decay, or as keeping the value its mixer gave it at construction."""
    parameter.takes_weight_decay = decay  # pyright: ignore[reportAttributeAccessIssue]
    parameter.takes_initialisation = initialise  # pyright: ignore[reportAttributeAccessIssue]
    return parameter


def state_bytes(state: State) -> int:
    """Return the bytes that the tensors of a state (or of a nest of states) really hold."""
    return sum(part.numel() * part.element_size() if isinstance(part, Tensor) else state_bytes(part) for part in state)
