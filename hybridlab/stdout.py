"""Printing to any terminal: a character that it cannot encode never costs a run or a report."""

import sys
from typing import Any

# What stands for the characters of our texts where only ASCII can be printed.
_PLAIN = str.maketrans(
    {"–": "-", "−": "-", "—": "-", "…": "...", "→": "->", "×": "x", "≤": "<=", "≥": ">=", "†": "+", "±": "+-"}
)


class Printable:
    """The standard output of the moment, which prints a `?` for what it cannot encode.

    `LANG=C` and `PYTHONIOENCODING=ascii` make such outputs; a pipe on Windows is one too.
    """

    @property
    def stream(self) -> Any:
        """The standard output, which a caller may have replaced since."""
        return sys.stdout

    @property
    def encoding(self) -> str:
        """The encoding of the standard output; a stream of text without any takes everything."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text, with replacements where the standard output has no such character."""
        return self.stream.write(encodable(text, self.encoding))

    def flush(self) -> None:
        """Flush the standard output."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Return whether the standard output is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the standard output."""
        return self.stream.fileno()


def encodable(text: str, encoding: str) -> str:
    """Return a text as it can be encoded: as it is if it can, else with dashes for dashes, and `?`.

    >>> encodable("1 – 2 → ß", "ascii")
    '1 - 2 -> ?'
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, errors="replace").decode(encoding)
    return text


def print_any() -> None:
    """Let this process print any text: what a stream cannot encode is replaced."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")
