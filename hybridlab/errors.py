"""The one error a user is meant to see, and the near miss that goes with it."""

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(ValueError):
    """A mistake in what the user asked for: one line that names the key, what came and what is allowed.

    The command line prints it on stderr and exits with code 2, without a traceback.
    """


class RunFailedError(RuntimeError):
    """A run ended without its numbers; its record and its traceback say why. The command line exits with code 1."""


def near_miss(word: str, allowed: Iterable[str]) -> str:
    """End of an error message: the closest allowed word, or else all of them.

    >>> near_miss("slidng", ["full", "sliding"])
    'did you mean `sliding`?'
    """
    words = sorted(map(str, allowed))
    if close := get_close_matches(str(word), words, n=1):
        return f"did you mean `{close[0]}`?"
    return f"allowed: {', '.join(words)}" if words else "none is allowed here"


def replacing(key: str, value: str) -> str:
    """End of an error message: how an override takes the place of the file's mapping or list, which Hydra merges it into.

    >>> replacing("stack.groups.deep.mixer", "[full]")
    "to replace what is there: '~stack.groups.deep.mixer' '+stack.groups.deep.mixer=[full]'"
    """
    return f"to replace what is there: '~{key}' '+{key}={value}'"
