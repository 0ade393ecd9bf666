"""Documents in files: a folder, one file, or the corpus that the package includes."""

import os
from collections.abc import Iterator
from pathlib import Path

from hybridlab.errors import ConfigError
from hybridlab.tasks.cache import digest_of
from hybridlab.tasks.file_digests import file_digests
from hybridlab.tasks.text.formats import documents_of, format_of, is_readable
from hybridlab.tasks.text.source import Source

EMBEDDED = Path(__file__).parents[1] / "data" / "state_of_the_union.jsonl.xz"
_FORMATS = ".txt, .md, .jsonl (each also .gz, .xz or .zst) or .parquet"


class Files(Source):
    """The documents of all files under a folder, of one file, or of the embedded corpus (`path`
    None). Links are followed, each folder once.

    `field` is the JSON key or the table column that holds the text; `encoding` is that of .txt and
    .md files.
    """

    def __init__(self, path: str | None, field: str = "text", encoding: str = "utf-8"):
        self.path = path
        self.field = field
        self.encoding = encoding
        self._top = EMBEDDED if path is None else Path(path).expanduser()
        try:
            b"\0\0\0\0".decode(encoding)
        except (LookupError, UnicodeError):
            raise ConfigError(f"encoding={encoding}: no such text encoding; examples are utf-8 and latin-1") from None

    def __str__(self) -> str:
        return f"path={self.path}"

    @property
    def digest(self) -> str:
        """The SHA-256 of everything that determines the documents: the files' contents, their
        formats, the settings. Paths and names do not."""
        try:
            files = self._files()
            digests = file_digests(files)
        except OSError as error:
            file = self._top if error.filename is None else Path(error.filename)
            raise self._refused(file, f"cannot be read: {error.strerror}") from error
        each = [f"{format_of(file.name)} {digest}" for file, digest in zip(files, digests, strict=True)]
        return digest_of(self.field, self.encoding, sorted(each))

    def documents(self) -> Iterator[bytes]:
        """Yield the UTF-8 bytes of every document, including empty ones and duplicates, file by
        file."""
        for file in self._files():
            try:
                yield from documents_of(file, self.field, self.encoding)
            except ValueError as error:
                raise self._refused(file, str(error)) from error

    def _files(self) -> list[Path]:
        if self._top.is_dir():
            files = [file for file in sorted(_under(self._top)) if is_readable(file.name) and file.is_file()]
            if not files:
                raise self._refused(self._top, f"holds no {_FORMATS} files")
            return files
        if not self._top.exists():
            raise self._refused(self._top, "no such file or folder")
        if not self._top.is_file() or not is_readable(self._top.name):
            raise self._refused(self._top, f"must be a folder or a file; formats: {_FORMATS}")
        return [self._top]

    def _refused(self, file: Path, reason: str) -> ConfigError:
        name = "" if file == self._top else f"{file.relative_to(self._top)}: "
        return ConfigError(f"{self}: {name}{reason}")


def _under(top: Path) -> Iterator[Path]:
    """Yield the files under a folder, links to folders included, each folder once; raise an OSError
    for a folder that cannot be read."""

    def refuse(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for folder, folders, names in os.walk(top, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder) / name for name in names)
