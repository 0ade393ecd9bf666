"""From files to documents: a list of byte strings, without exact duplicates."""

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from hybridlab.errors import ConfigError

EMBEDDED = Path(__file__).parent / "data" / "state_of_the_union.jsonl.xz"

_OPENERS: dict[str, Callable] = {".jsonl": open, ".jsonl.gz": gzip.open, ".jsonl.xz": lzma.open}


class Corpus(NamedTuple):
    """Distinct documents of at least one byte, and how many were left out."""

    documents: list[bytes]
    num_duplicates: int
    num_empty: int


def read_corpus(path: str | None) -> Corpus:
    """Read a folder of .txt files, a .jsonl file (plain, .gz or .xz) of objects with a "text", or the embedded corpus.

    A .txt file is taken as the bytes it holds, in whatever encoding; a text of a .jsonl file as its UTF-8 bytes.
    """
    try:
        texts = list(_texts(EMBEDDED if path is None else Path(str(path)).expanduser()))
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ConfigError(f"path={path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise ConfigError(f"path={path}: {error}") from error
    filled = [text for text in texts if text]
    distinct = list(dict.fromkeys(filled))
    return Corpus(distinct, num_duplicates=len(filled) - len(distinct), num_empty=len(texts) - len(filled))


def _texts(path: Path) -> Iterator[bytes]:
    if not path.exists():
        raise ValueError("no such file or folder")
    if path.is_dir():
        return (file.read_bytes() for file in sorted(path.rglob("*.txt")) if file.is_file())
    for ending, opener in _OPENERS.items():
        if path.name.endswith(ending):
            return _texts_of_lines(path, opener)
    raise ValueError("must be a folder of .txt files or a .jsonl, .jsonl.gz or .jsonl.xz file")


def _texts_of_lines(path: Path, opener: Callable) -> Iterator[bytes]:
    with opener(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _text_of(line, number)


def _text_of(line: bytes, number: int) -> bytes:
    try:
        row = json.loads(line.decode())
        text = row.get("text") if isinstance(row, dict) else None
        if isinstance(text, str):
            return text.encode()
    except UnicodeError:
        raise ValueError(f"line {number} is not valid UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError(f"line {number} is not valid JSON") from None
    raise ValueError(f'line {number} is not an object with a "text" that is a string')
