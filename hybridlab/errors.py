"""The errors that a user is meant to see, and the parts that their messages share."""

import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType


class ConfigError(ValueError):
    """A user's mistake, in one line: the key, the value that came and what is allowed.

    The command line prints it on stderr and exits with code 2, without a traceback.
    """


class RunFailedError(RuntimeError):
    """A run that ended without its numbers; its record and its traceback say why.

    The command line exits with code 1.
    """


def reason_of(error: BaseException) -> str:
    """Return in one line why something failed.

    Running out of memory raises several errors, which get one name.
    """
    message = f"{type(error).__name__}: {error}".strip().splitlines()[0].rstrip(": ")
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out_of_memory or "can't allocate memory" in message:
        return f"out of memory ({message})"
    return message


def place_of(error: BaseException) -> str:
    """Return `file:line` of where an error was raised: in a user's code if it passed through it,
    else in ours, else "".

    Frames of installed packages are left out: a wrong shape is noticed deep inside PyTorch.
    """
    package, installed = str(Path(__file__).parent), (sysconfig.get_path("stdlib"), "<")
    ours = theirs = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        if file.startswith(package):
            ours = f"{file}:{line}"
        elif not file.startswith(installed) and not {"site-packages", "dist-packages"} & {*Path(file).parts}:
            theirs = f"{file}:{line}"
        trace = trace.tb_next
    return theirs or ours


def near_miss(word: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message: the closest allowed word, or else all of them.

    >>> near_miss("slidng", ["full", "sliding"])
    'did you mean `sliding`?'
    """
    from difflib import get_close_matches  # here, so that `import hybridlab` stays fast

    words = sorted(map(str, allowed))
    if close := get_close_matches(str(word), words, n=1):
        return f"did you mean `{close[0]}`?"
    return f"allowed: {', '.join(words)}" if words else "none is allowed here"


def replacing(key: str, value: str) -> str:
    """Return the end of an error message: the overrides that replace a mapping or list, which Hydra
    would merge into.

    >>> replacing("stack.groups.deep.mixer", "[full]")
    "to replace it: '~stack.groups.deep.mixer' '+stack.groups.deep.mixer=[full]'"
    """
    return f"to replace it: '~{key}' '+{key}={value}'"


@contextmanager
def under(path: str) -> Iterator[None]:
    """Put a configuration path in front of the setting that a ValueError raised inside starts with.

    `length=0: must be ...` under `task` becomes the ConfigError "`task.length=0`: must be ...". At
    the root `path` is "". A message that starts with the whole path already is kept.
    """
    try:
        yield
    except ValueError as error:
        raise ConfigError(_at(path, str(error))) from error


def _at(path: str, message: str) -> str:
    if path and message.startswith(f"`{path}."):
        return message
    setting, colon, rest = message.partition(": ")
    if colon and setting.partition("=")[0].replace(".", "").isidentifier():
        return f"`{path}.{setting}`: {rest}" if path else f"`{setting}`: {rest}"
    return f"`{path}`: {message}" if path else message
