"""The mode that a stack is measured in."""

from collections.abc import Iterator
from contextlib import contextmanager

from hybridlab.stack.model import Stack


@contextmanager
def eval_mode(stack: Stack) -> Iterator[None]:
    """Put a stack into evaluation mode, and afterwards back into the mode that it was in."""
    was_training = stack.training
    stack.eval()
    try:
        yield
    finally:
        stack.train(was_training)
