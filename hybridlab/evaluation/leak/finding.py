"""What the gate finds, and the sentence that says so."""

from dataclasses import dataclass, replace
from enum import StrEnum

from hybridlab.errors import ConfigError


class LeakFoundError(ConfigError):
    """A leak of a stack that is about to be trained: the run does not start."""


class LeakError(RuntimeError):
    """A leak of a trained stack: the run ends without test numbers."""


class Kind(StrEnum):
    """What is wrong; the values are the sentences, which follow the name of the mixer."""

    FUTURE = (
        "sees the future: in a sequence of {length}, changing the inputs after position {cut} "
        "changed the output at position {position} (by {moved:.2g} of its magnitude)"
    )
    LENGTH = (
        "sees the future: in a sequence of {length}, leaving out the inputs after position {cut} "
        "changed the output at position {position} (by {moved:.2g} of its magnitude)"
    )
    BATCH = (
        "reads other sequences of its batch: they changed the output at position {position} "
        "of a sequence of {length} (by {moved:.2g} of its magnitude)"
    )
    DOCUMENTS = (
        "reads other documents of its sequence: in a packed sequence of {length}, they changed "
        "the output at position {position} (by {moved:.2g} of its magnitude)"
    )
    MEMORY = (
        "remembers an earlier call: it gave another output for the same sequence of {length} when "
        "called again (by {moved:.2g} of its magnitude, first at position {position})"
    )
    DECODING = (
        "decodes another function than it trains: in a sequence of {length}, `extend` from "
        "`initial_state` differs from `forward` at position {position} (by {moved:.2g} of its magnitude)"
    )
    CHUNKS = (
        "sees the future within a chunk, or keeps a wrong state: in a sequence of {length}, `extend` by chunks "
        "differs from `extend` token by token at position {position} (by {moved:.2g} of its magnitude)"
    )
    STATE = "writes into a state that it was given: `extend` must return a new one (position {position})"
    NOT_FINITE = "puts out NaN or infinity: at position {position} of an ordinary sequence of {length}"


@dataclass(frozen=True)
class Leak:
    """The first fault found: in a sequence of `length`, changing what comes after `cut`, or what
    `kind` says, changed the output at `position`.
    """

    length: int
    cut: int
    position: int
    moved: float  # the change there, relative to the output's magnitude
    kind: Kind = Kind.FUTURE
    mode: str = ""  # e.g. "in training mode, in float64"

    def __str__(self) -> str:
        sentence = self.kind.format(length=self.length, cut=self.cut, position=self.position, moved=self.moved)
        return f"{sentence}; {self.mode}" if self.mode else sentence

    def during(self, mode: str) -> "Leak":
        """Return the same leak with the mode in which it was found."""
        return replace(self, mode=mode)
