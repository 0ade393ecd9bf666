"""An exception of a user's module, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hybridlab.errors import ConfigError, place_of, reason_of


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Turn an exception into a ConfigError that names `what`, the message, the file and the line.

    Running out of memory is no mistake of the module and stays as it is.
    """
    try:
        yield
    except (ConfigError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ConfigError(f"{what} fails in the leak gate: {reason_of(error)} ({place_of(error)})") from error
