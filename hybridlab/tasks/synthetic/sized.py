"""Tasks whose training examples have one length, and whose held-out examples may have multiples of
it."""

from collections.abc import Sequence
from dataclasses import dataclass

from hybridlab import validate
from hybridlab.errors import ConfigError
from hybridlab.tasks.synthetic.base import Segment, Synthetic


@dataclass(kw_only=True, eq=False)
class Sized(Synthetic):
    """Training sequences of `length` tokens, and held-out sequences of each of `multiples` times as
    many.

    `examples` is the number of training examples, or None for fresh ones at every step. `held_out`
    is the number of examples of each length in the validation split, and in the test split. A
    subclass is a dataclass that adds its own settings as fields and checks them in `__post_init__`,
    before it calls this one's.
    """

    seed: int
    length: int
    batch: int
    examples: int | None = None
    held_out: int = 1000
    multiples: Sequence[int] = (1,)

    def __post_init__(self) -> None:
        validate.whole(length=self.length, batch=self.batch, held_out=self.held_out)
        validate.whole(null="fresh examples at every step", examples=self.examples)
        if not self.multiples:
            raise ConfigError("multiples=[]: at least one multiple of the length is needed, such as 1")
        for multiple in self.multiples:
            validate.whole(multiples=multiple)
        super().__init__(
            seed=self.seed,
            batch=self.batch,
            training=[Segment(self.length, self.examples or self.batch)],
            evaluation=[Segment(self.length * multiple, self.held_out) for multiple in self.multiples],
            fresh=self.examples is None,
        )
