"""The errors that a user is meant to see, and the parts that their messages share."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class ConfigError(ValueError):
    """A user's mistake, in one line: the key, the value that came and what is allowed.

    The command line prints it on stderr and exits with code 2, without a traceback.
    """


class RunFailedError(RuntimeError):
    """A run that ended without its numbers; its record and its traceback say why.

    The command line exits with code 1.
    """


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
