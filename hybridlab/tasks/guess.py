"""What guessing among the answers of an example reaches."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from hybridlab.tasks.batch import IGNORED


class Guess(NamedTuple):
    """The accuracy and the NLL, in nats per target, of a guess on each example."""

    accuracy: Float64[np.ndarray, " n"]
    nll: Float64[np.ndarray, " n"]


def guess(answers: Int64[np.ndarray, "n a"]) -> Guess:
    """Return the share of the most frequent answer of each example, and the entropy of its answers.

    A target is one of the answers, each equally likely, and `IGNORED` is none. Of k answers that
    all differ, the two are 1/k and ln k.
    """
    accuracy, nll = np.zeros(len(answers)), np.zeros(len(answers))
    for number, row in enumerate(answers):
        counts = np.unique(row[row != IGNORED], return_counts=True)[1]
        share = counts / counts.sum()
        accuracy[number], nll[number] = share.max(), -(share * np.log(share)).sum()
    return Guess(accuracy, nll)
