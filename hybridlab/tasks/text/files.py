"""Documents in files: a folder of them, one file, or the corpus that comes with the package."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from hybridlab.errors import ConfigError
from hybridlab.tasks.text.formats import documents_of, is_readable

EMBEDDED = Path(__file__).parents[1] / "data" / "state_of_the_union.jsonl.xz"
_FORMATS = ".txt, .md, .jsonl (each also .gz, .xz or .zst) or .parquet"


class Files:
    """The documents of every file under a folder, of one file, or (None) of the embedded corpus.

    `field` is the key of a line, or the column of a table, that holds the text; `encoding` is that of .txt and .md.
    """

    def __init__(self, path: str | None, field: str = "text", encoding: str = "utf-8"):
        self.path = path
        self.field = field
        self.encoding = encoding
        self._top = EMBEDDED if path is None else Path(path).expanduser()
        try:
            b"\0\0\0\0".decode(encoding)
        except (LookupError, UnicodeError):
            raise ConfigError(f"encoding={encoding}: no such encoding of text; utf-8 and latin-1 are two") from None

    def __str__(self) -> str:
        return f"path={self.path}"

    @property
    def digest(self) -> str:
        """The SHA-256 of what decides the documents: the files' contents and formats, and how they are read."""
        each = []
        for file in self._files():
            try:
                with file.open("rb") as opened:
                    each.append(f"{file.suffixes[-2:]} {hashlib.file_digest(opened, 'sha256').hexdigest()}")
            except OSError as error:
                raise self._refused(file, f"cannot be read: {error.strerror}") from error
        return hashlib.sha256("\n".join([self.field, self.encoding, *sorted(each)]).encode()).hexdigest()

    def documents(self) -> Iterator[bytes]:
        """Yield the UTF-8 bytes of every document, empty ones and duplicates too, one file after another."""
        for file in self._files():
            try:
                yield from documents_of(file, self.field, self.encoding)
            except ValueError as error:
                raise self._refused(file, str(error)) from error

    def _files(self) -> list[Path]:
        if self._top.is_dir():
            files = [file for file in sorted(self._top.rglob("*")) if is_readable(file.name) and file.is_file()]
            if not files:
                raise self._refused(self._top, f"holds no {_FORMATS} files")
            return files
        if not self._top.exists():
            raise self._refused(self._top, "no such file or folder")
        if not self._top.is_file() or not is_readable(self._top.name):
            raise self._refused(self._top, f"must be a folder, or a file of {_FORMATS}")
        return [self._top]

    def _refused(self, file: Path, reason: str) -> ConfigError:
        place = "" if file == self._top else f"{file.relative_to(self._top)}: "
        return ConfigError(f"{self}: {place}{reason}")
