"""Readers of text files: each yields the documents of one file, one at a time."""

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hybridlab.errors import near_miss

MOST_BYTES = 1 << 26  # of one document, so that an endless line or file cannot fill the memory


def is_readable(name: str) -> bool:
    """Return whether a file's suffix is that of a format that can be read."""
    return _ending(name) in _READERS


def format_of(name: str) -> str:
    """Return what decides how a file is read: the suffix of its format, and that of its
    compression."""
    packed = Path(name).suffix
    return _ending(name) + (packed if packed in _OPENERS else "")


def documents_of(file: Path, field: str, encoding: str) -> Iterator[bytes]:
    """Yield the UTF-8 bytes of each document of a file.

    A .txt or .md file is one document in `encoding`; so is each line of .jsonl, with its text under
    the key `field`, and each row of .parquet, with its text in the column `field`. All but .parquet
    can be compressed: .gz, .xz, .zst. A ValueError names the problem and where in the file it is.
    """
    try:
        yield from _READERS[_ending(file.name)](file, field, encoding)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _ending(name: str) -> str:
    path = Path(name)
    inner = Path(path.stem).suffix
    return inner if path.suffix in _OPENERS and inner != ".parquet" else path.suffix


def _whole(file: Path, field: str, encoding: str) -> Iterator[bytes]:
    with _open(file) as opened:
        content = opened.read(MOST_BYTES + 1)
    _check_size(len(content), "the file")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        byte = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        raise ValueError(f"not text in {encoding} ({byte}); set encoding to another") from error
    if "\0" in text:
        raise ValueError(f"binary, not text (a NUL at offset {content.index(0)})")
    yield text.encode()


def _lines(file: Path, field: str, encoding: str) -> Iterator[bytes]:
    number = 0
    with _open(file) as opened:
        while line := opened.readline(MOST_BYTES + 1):
            number += 1
            _check_size(len(line), f"line {number}")
            if line.strip():
                yield _text_of(line, number, field)


def _text_of(line: bytes, number: int, field: str) -> bytes:
    try:
        entry = json.loads(line.decode())
        text = entry.get(field) if isinstance(entry, dict) else None
        if isinstance(text, str):
            return text.encode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} at offset {error.start}"
        raise ValueError(f"line {number} is not valid UTF-8 ({byte} of the line)") from None
    except UnicodeEncodeError:
        raise ValueError(f"line {number} is not valid UTF-8 (a lone surrogate)") from None
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"line {number} is not valid JSON") from None
    raise ValueError(f'line {number} is not an object with a "{field}" that is a string')


def _column(file: Path, field: str, encoding: str) -> Iterator[bytes]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError("a .parquet file is read by pyarrow: pip install 'hybridlab[data]'") from error
    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if field not in names:
                raise ValueError(f"has no column `{field}`; {near_miss(field, names)}")
            if (kind := opened.schema_arrow.field(field).type) not in (pyarrow.string(), pyarrow.large_string()):
                raise ValueError(f"its column `{field}` holds {kind}, not text")
            for rows in opened.iter_batches(batch_size=64, columns=[field]):
                for row in rows.column(0):
                    text = (row.as_py() or "").encode()
                    _check_size(len(text), "a row")
                    yield text
    except UnicodeDecodeError as error:
        raise ValueError("a row is not valid UTF-8") from error
    except pyarrow.ArrowException as error:
        raise ValueError(f"cannot be read: {str(error).splitlines()[0]}") from error


def _check_size(num_bytes: int, what: str) -> None:
    if num_bytes > MOST_BYTES:
        raise ValueError(f"{what} is longer than {MOST_BYTES:,} bytes, the limit for one document")


def _open(file: Path) -> io.BufferedIOBase:
    return _OPENERS.get(file.suffix, open)(file, "rb")


def _open_zstandard(file: Path, mode: str) -> io.BufferedReader:
    try:
        import zstandard
    except ImportError as error:
        raise ValueError("a .zst file is read by zstandard: pip install 'hybridlab[data]'") from error
    return io.BufferedReader(_Zstandard(file, zstandard), buffer_size=1 << 20)


class _Zstandard(io.RawIOBase):
    """A reader of Zstandard frames, one after another. The library's own reader takes a truncated
    frame for a complete one."""

    def __init__(self, file: Path, zstandard: Any):
        self._file = file.open("rb")
        self._zstandard = zstandard
        self._frame = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._packed = self._packed or self._file.read(1 << 17)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("the last frame is truncated")
                return 0
            self._decompress()
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def _decompress(self) -> None:
        frame = self._frame or self._zstandard.ZstdDecompressor().decompressobj()
        try:
            self._ready = memoryview(frame.decompress(self._packed))
        except self._zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        self._packed = frame.unused_data if frame.eof else b""
        self._frame = None if frame.eof else frame

    def close(self) -> None:
        self._file.close()
        super().close()


_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".zst": _open_zstandard}
_READERS: dict[str, Callable[[Path, str, str], Iterator[bytes]]] = {
    ".txt": _whole,
    ".md": _whole,
    ".jsonl": _lines,
    ".parquet": _column,
}
