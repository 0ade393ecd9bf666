"""An exception of a user's module, in one line."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import hybridlab
from hybridlab.errors import ConfigError

LIBRARIES = tuple(str(Path(str(package.__file__)).parent) + os.sep for package in (hybridlab, torch))


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
        message = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        raise ConfigError(
            f"{what} fails in the leak gate: {type(error).__name__}: {message} ({_place(error)})"
        ) from error


def _place(error: BaseException) -> str:
    """Return the file and the line of the innermost frame outside of libraries, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_file()]
    outside = [frame for frame in own if not frame.filename.startswith(LIBRARIES)]
    frame = (outside or own or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"
