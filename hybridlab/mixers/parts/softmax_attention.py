"""What mixers with one softmax over visible tokens share: settings, projections and weights."""

import inspect
from typing import Any, ClassVar, TypedDict

from jaxtyping import Bool, Float, Int
from torch import Tensor, arange, nn

from hybridlab.mixers.base import Mixer
from hybridlab.mixers.parts.key_values import KeyValues
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads
from hybridlab.ops.attention.attention_weights import attention_weights


class SharedSettings(TypedDict, total=False):
    """The settings of `SoftmaxAttention`, for a subclass that takes them as `**shared`."""

    width: int
    causal: bool
    heads: int
    kv_heads: int | None
    rope: float | None
    qk_norm: bool


class SoftmaxAttention(Mixer):
    """o_t = Σ_j softmax_j(q_t·k_j / √k) v_j over the tokens j that t sees.

    A subclass defines what a token sees. Groups of heads may share keys and values (`kv_heads`).
    Positions are rotary, or none (`rope` null). `qk_norm` normalises queries and keys.
    """

    __signature__: ClassVar[inspect.Signature]

    def __init__(
        self,
        *,
        width: int,
        causal: bool = True,
        heads: int = 4,
        kv_heads: int | None = None,
        rope: float | None = 10000.0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.projections = QueryKeyValue(width=width, heads=heads, kv_heads=kv_heads, rope=rope, qk_norm=qk_norm)
        self.out = nn.Linear(width, width, bias=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Spell out `**shared` in the signature of a subclass, which defines its settings."""
        super().__init_subclass__(**kwargs)
        own = dict(inspect.signature(cls.__init__).parameters)
        del own["self"]
        if any(each.kind is each.VAR_KEYWORD for each in own.values()):
            own = {**inspect.signature(cls.__mro__[1]).parameters, **own}
        cls.__signature__ = inspect.Signature([each for each in own.values() if each.kind is not each.VAR_KEYWORD])

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token to those that it sees."""
        return self._attend(*self.projections(x))

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return the weights of all tokens for the queries at some positions."""
        q, k, _ = self.projections(x)
        return attention_weights(q[:, :, at], k, self._visible(at, arange(x.shape[1], device=x.device)))

    def _attend(
        self, q: Float[Tensor, "b h n k"], k: Float[Tensor, "b g t k"], v: Float[Tensor, "b g t k"]
    ) -> Float[Tensor, "b n d"]:
        """Return the output of the last n of t tokens."""
        raise NotImplementedError

    def _visible(self, at: Int[Tensor, " n"], keys: Int[Tensor, " t"]) -> Bool[Tensor, "*h n t"]:
        """Return which of the positions `keys` the positions `at` see, per head or for all."""
        raise NotImplementedError

    def _write(self, o: Float[Tensor, "b h n k"]) -> Float[Tensor, "b n d"]:
        """Map the outputs of all heads to the residual stream."""
        return self.out(join_heads(o))


class CachedAttention(SoftmaxAttention):
    """Softmax attention whose tokens may see any past token, so that decoding keeps all of them."""

    def initial_state(self, batch: int, like: Tensor) -> KeyValues:
        """Return empty keys and values."""
        return self.projections.no_past(batch, like)

    def extend(self, x: Float[Tensor, "b n d"], state: KeyValues) -> tuple[Float[Tensor, "b n d"], KeyValues]:
        """Attend from each new token to the past and to the chunk up to itself."""
        q, k, v = self.projections(x, state.past)
        state = state.and_then(k, v)
        return self._attend(q, *state.like(q)), state
