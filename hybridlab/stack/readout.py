"""Readouts: what the head reads of the last layer's output to predict the targets."""

from enum import StrEnum


class Readout(StrEnum):
    """The vectors that a prediction is read from. A task declares one, `pooling` implements it.

    - `EVERY_POSITION`: each target from the vector of its own position, as in language modelling.
    - `SEQUENCE_MEAN`: one class a sequence, from the mean of its vectors, without padding.
    - `PAIR_OF_MEANS`: one class a sequence, from the means of its documents 0 and 1, which are
      encoded apart and compared.
    - `LAST_POSITION`: each target from the vector of the sequence's last position, as in an
      autoencoder with a bottleneck.
    """

    EVERY_POSITION = "every_position"
    SEQUENCE_MEAN = "sequence_mean"
    PAIR_OF_MEANS = "pair_of_means"
    LAST_POSITION = "last_position"
