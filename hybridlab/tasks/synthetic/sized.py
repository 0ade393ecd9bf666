"""Rules whose examples have one size in training, and several times that size in evaluation if so asked."""

from collections.abc import Sequence

from hybridlab.errors import ConfigError
from hybridlab.tasks.settings import require_whole
from hybridlab.tasks.synthetic.base import Segment, Synthetic


class Sized(Synthetic):
    """Rows of `length` tokens to train on, and held-out rows of each of `multiples` times as many.

    `held_out` counts the examples of each length in the validation split, and in the test split.
    """

    def __init__(
        self,
        *,
        seed: int,
        length: int,
        batch: int,
        examples: int | None,
        held_out: int,
        multiples: Sequence[int] = (1,),
    ):
        require_whole("length", length, least=1)
        require_whole("batch", batch, least=1)
        require_whole("held_out", held_out, least=1)
        if examples is not None:
            require_whole("examples", examples, least=1)
        if not multiples or any(type(each) is not int or each < 1 for each in multiples):
            raise ConfigError(f"multiples={list(multiples)}: must be whole numbers of at least 1, one or more")
        training = [Segment(length, examples or batch)]
        evaluation = [Segment(length * multiple, held_out) for multiple in multiples]
        super().__init__(seed=seed, batch=batch, training=training, evaluation=evaluation, fresh=examples is None)
