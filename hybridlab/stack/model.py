"""The network: embedding, layers, final norm and head.

Letters in shapes: b batch (sequences), t time (tokens), n some of these, d width of the stack, v
vocabulary, c classes.
"""

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
    """A pre-norm layer: `x + mixer(norm(x))`, then `x + channel(norm(x))`."""

    def __init__(self, mixer: Any, channel: nn.Module | None, width: int) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(width)
        self.mixer = mixer
        self.channel_norm = None if channel is None else nn.RMSNorm(width)
        self.channel = channel

    def forward(self, x: Float[Tensor, "b t d"], packing: Packing | None = None) -> Float[Tensor, "b t d"]:
        """Run whole sequences from an empty past.

        With `packing`, each document of the batch from an empty past.
        """
        normed = self.mixer_norm(x)
        return self._mix_channels(x + (self.mixer(normed) if packing is None else packing.mix(self.mixer, normed)))

    def extend(self, x: Float[Tensor, "b n d"], state: State) -> tuple[Float[Tensor, "b n d"], State]:
        """Run the n tokens that follow those in `state`; return their outputs and the new state."""
        mixed, state = self.mixer.extend(self.mixer_norm(x), state)
        return self._mix_channels(x + mixed), state

    def _mix_channels(self, x: Tensor) -> Tensor:
        if self.channel is None or self.channel_norm is None:
            return x
        return x + self.channel(self.channel_norm(x))


class Stack(nn.Module):
    """A whole model: tokens in, logits out.

    `readout` sets which positions of the residual stream the targets are predicted from; `pooling`
    carries it out. With `EVERY_POSITION` the head predicts tokens and shares the embedding's
    weights. Any other readout has a head of its own, which predicts `classes`, or tokens if
    `classes` is None.
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
        self.plan, self.readout, self.classes = plan, readout, classes
        self.embedding = nn.Embedding(vocabulary, plan.width)
        self.layers = nn.ModuleList(
            Block(
                build_mixer(layer, plan.width, plan.causal, len(plan.layers)),
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
        """Return the logits of the target at every position, or of the class of each sequence.

        `documents` numbers the document of each token; documents do not see one another, and a
        number below 0 marks padding. Without it each sequence is one document.
        """
        return self.read(self.hidden(tokens, documents), documents)

    def hidden(self, tokens: Int[Tensor, "b t"], documents: Int[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        """Return the residual stream after the last layer."""
        return self.run(self.embedding(tokens), packing=packing_of(documents))

    def run(self, x: Float[Tensor, "b t d"], first: int = 0, packing: Packing | None = None) -> Float[Tensor, "b t d"]:
        """Run the residual stream through the layers from `first` to the last."""
        for layer in list(self.layers)[first:]:
            x = layer(x, packing)
        return x

    def run_each(
        self, x: Float[Tensor, "b t d"], first: int = 0, packing: Packing | None = None
    ) -> Iterator[Float[Tensor, "b t d"]]:
        """Yield the residual stream after each layer from `first` to the last."""
        for layer in list(self.layers)[first:]:
            x = layer(x, packing)
            yield x

    def residuals(self, tokens: Int[Tensor, "b t"], packing: Packing | None = None) -> Iterator[Float[Tensor, "b t d"]]:
        """Yield the residual stream before each layer and after the last."""
        x = self.embedding(tokens)
        yield x
        yield from self.run_each(x, packing=packing)

    def read(
        self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t v"] | Float[Tensor, "b c"]:
        """Return the logits that are read from a residual stream, as `forward` returns them."""
        return self.logits(self.pooled(x, documents))

    def logits(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*m v"]:
        """Return the logits of some of the vectors that `pooled` returns."""
        return self.head(self.pooling(self.norm(x)))

    def nll(self, x: Float[Tensor, "n *p d"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the NLL, in nats, of targets, one for each of some vectors that `pooled` returns.

        Only these vectors are read, and the logits of a large vocabulary are never held all at
        once.
        """
        return head_cross_entropy(self.pooling(self.norm(x)), self.head.weight, targets)

    def pooled(
        self, x: Float[Tensor, "b t d"], documents: Int[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"] | Float[Tensor, "b d"] | Float[Tensor, "b 2 d"]:
        """Return the vectors that the targets are predicted from, in the order of the targets."""
        return self.pooling.pooled(x, documents)

    def initial_state(self, batch: int) -> tuple[State, ...]:
        """Return the states of an empty past, one per layer."""
        like = self.embedding.weight
        return tuple(layer.mixer.initial_state(batch, like) for layer in self.layers)  # type: ignore[union-attr]

    def extend(
        self, tokens: Int[Tensor, "b n"], state: tuple[State, ...]
    ) -> tuple[Float[Tensor, "b n v"], tuple[State, ...]]:
        """Return the logits of the n tokens that follow those in `state`, and the new state:
        decoding (n = 1) and prefill.
        """
        assert self.pooling.by_position, "what is predicted from a whole sequence cannot be read token by token"
        x = self.embedding(tokens)
        states = []
        for layer, past in zip(self.layers, state, strict=True):
            x, past = layer.extend(x, past)  # type: ignore[operator]
            states.append(past)
        return self.read(x), tuple(states)


def initialise(stack: Stack) -> None:
    """Draw the weights of linear maps and the embedding: normal, with variance 1 / inputs.

    As in GPT-2, maps that write to the residual stream get smaller weights: the standard deviation
    is divided by the square root of twice the number of layers. Parameters that are tagged as
    keeping their own initialisation keep it.
    """
    writers = {getattr(part, "out", None) for layer in stack.layers for part in (layer.mixer, layer.channel)}
    for module in stack.modules():
        if isinstance(module, nn.Linear | nn.Embedding) and getattr(module.weight, "takes_initialisation", True):
            shrink = (2 * len(stack.layers)) ** -0.5 if module in writers else 1.0
            nn.init.normal_(module.weight, std=shrink * module.weight.shape[-1] ** -0.5)
