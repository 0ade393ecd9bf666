"""The network: embedding, layers, final norm and head."""

from collections.abc import Iterator
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridlab.build import build
from hybridlab.mixers.base import State
from hybridlab.ops.head_cross_entropy import head_cross_entropy
from hybridlab.stack.layer import build_mixer
from hybridlab.stack.packing import Packing, packing_of
from hybridlab.stack.plan import Plan
from hybridlab.stack.pooling import POOLINGS
from hybridlab.stack.readout import Readout


class Block(nn.Module):
    """One pre-norm layer: `x + mixer(norm(x))`, then `x + channel(norm(x))`."""

    def __init__(self, mixer: Any, channel: nn.Module | None, width: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(width)
        self.mixer = mixer
        self.channel_norm = None if channel is None else nn.RMSNorm(width)
        self.channel = channel

    def forward(self, x: Float[Tensor, "b t d"], packing: Packing | None = None) -> Float[Tensor, "b t d"]:
        """Run a whole row from an empty past, or each of the documents that it holds."""
        normed = self.mixer_norm(x)
        return self._mix_channels(x + (self.mixer(normed) if packing is None else packing.mix(self.mixer, normed)))

    def extend(self, x: Float[Tensor, "b n d"], state: State) -> tuple[Float[Tensor, "b n d"], State]:
        """Run the next n tokens after those in `state`."""
        mixed, state = self.mixer.extend(self.mixer_norm(x), state)
        return self._mix_channels(x + mixed), state

    def _mix_channels(self, x: Tensor) -> Tensor:
        if self.channel is None or self.channel_norm is None:
            return x
        return x + self.channel(self.channel_norm(x))


class Stack(nn.Module):
    """The whole model: tokens in, logits out.

    `readout` sets which positions of the residual stream the targets are predicted from; `pooling` carries it out. With
    `EVERY_POSITION` the head predicts tokens and shares the embedding's weights. Any other readout has a head of its own,
    which predicts `classes`, or tokens if `classes` is None.
    """

    def __init__(
        self,
        plan: Plan,
        vocabulary: int,
        *,
        readout: Readout = Readout.EVERY_POSITION,
        classes: int | None = None,
    ) -> None:
        super().__init__()
        one_class = readout in (Readout.SEQUENCE_MEAN, Readout.PAIR_OF_MEANS)
        assert one_class == (classes is not None), f"{readout} {'needs' if one_class else 'has no'} classes"
        self.plan = plan
        self.embedding = nn.Embedding(vocabulary, plan.width)
        self.layers = nn.ModuleList(
            Block(
                build_mixer(layer, plan.width, plan.causal),
                None if plan.channel is None else build(plan.channel, "stack.channel", width=plan.width),
                plan.width,
            )
            for layer in plan.layers
        )
        self.norm = nn.RMSNorm(plan.width)
        self.pooling = POOLINGS[readout](plan.width)
        self.head = nn.Linear(self.pooling.features, vocabulary if classes is None else classes, bias=False)
        if self.pooling.by_position:
            self.head.weight = self.embedding.weight
        initialise(self)

    def forward(
        self, tokens: Int[Tensor, "b t"], documents: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t v"] | Float[Tensor, "b c"]:
        """Return the logits of the target at every position, or of the row's class.

        `documents` numbers the document of each token where a row holds several, of which none sees another, and marks
        padding by numbers below 0. Without it a row is one document.
        """
        return self.read(self.hidden(tokens, documents), documents)

    def hidden(self, tokens: Int[Tensor, "b t"], documents: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        """Return the residual stream after the last layer."""
        return self.run(self.embedding(tokens), packing=packing_of(documents))

    def run(self, x: Float[Tensor, "b t d"], first: int = 0, packing: Packing | None = None) -> Float[Tensor, "b t d"]:
        """Carry the residual stream through the layers from `first` to the last."""
        for layer in list(self.layers)[first:]:
            x = layer(x, packing)
        return x

    def residuals(self, tokens: Int[Tensor, "b t"], packing: Packing | None = None) -> Iterator[Float[Tensor, "b t d"]]:
        """Yield the residual stream in front of each layer, and behind the last."""
        x = self.embedding(tokens)
        yield x
        for layer in self.layers:
            x = layer(x, packing)
            yield x

    def read(
        self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t v"] | Float[Tensor, "b c"]:
        """Read the targets off a residual stream: the logits at every position, or of the row's class."""
        return self.logits(self.pooled(x, documents))

    def logits(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*m v"]:
        """Return the logits that the final norm and the head read off some of what `pooled` returns."""
        return self.head(self.pooling(self.norm(x)))

    def nll(self, x: Float[Tensor, "n *p d"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the NLL, in nats, of a target for each of some rows of what `pooled` returns.

        No position is read but those given, and a large vocabulary's logits are never held all at once.
        """
        return head_cross_entropy(self.pooling(self.norm(x)), self.head.weight, targets)

    def pooled(
        self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"] | Float[Tensor, "b d"] | Float[Tensor, "b 2 d"]:
        """Return what the targets are read from, in their order: at every position, or of each row."""
        return self.pooling.pooled(x, documents)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        """Return the state of an empty past, one per layer."""
        like = self.embedding.weight
        return tuple(layer.mixer.initial_state(batch, like) for layer in self.layers)  # type: ignore[union-attr]

    def extend(
        self, tokens: Int[Tensor, "b n"], state: tuple[State, ...]
    ) -> tuple[Float[Tensor, "b n v"], tuple[State, ...]]:
        """Read the next n tokens after those in `state`: decoding (n = 1) and chunked prefill."""
        assert self.pooling.by_position, "what is predicted from a whole sequence cannot be read token by token"
        x = self.embedding(tokens)
        states = []
        for layer, past in zip(self.layers, state, strict=True):
            x, past = layer.extend(x, past)  # type: ignore[operator]
            states.append(past)
        return self.read(x), tuple(states)


def initialise(stack: Stack) -> None:
    """Draw the weights: normal with variance 1 / inputs, less in what writes to the residual stream, as GPT-2 does.

    Parameters tagged as keeping their own initialisation, and all but linear maps and the embedding, are left as they are.
    """
    writers = {getattr(part, "out", None) for layer in stack.layers for part in (layer.mixer, layer.channel)}
    for module in stack.modules():
        if isinstance(module, nn.Linear | nn.Embedding) and getattr(module.weight, "takes_initialisation", True):
            shrink = (2 * len(stack.layers)) ** -0.5 if module in writers else 1.0
            nn.init.normal_(module.weight, std=shrink * module.weight.shape[-1] ** -0.5)
