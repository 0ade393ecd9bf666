"""Documents of a Hugging Face dataset, streamed: only what is read is downloaded."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hybridlab import validate
from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.text.formats import MOST_BYTES
from hybridlab.tasks.text.source import Source

_OFFLINE = (
    "without a network: set task.path to local files, or copy an $HF_HOME or $HYBRIDLAB_CACHE that has the dataset"
)
_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text"}


@dataclass(frozen=True, kw_only=True)
class Hub(Source):
    """A dataset on the hub, or a local folder of the same files, read from its start up to a limit.

    `files` is a pattern of files in it, for datasets that `datasets` cannot load by name. If the
    dataset's rows are lines of documents, `starts` is a regular expression that matches the first
    row of each document.
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    files: str | None = None
    starts: str | None = None
    max_documents: int | None = None
    max_bytes: int | None = None
    field: str = "text"

    def __post_init__(self) -> None:
        if self.max_documents is None and self.max_bytes is None:
            raise ConfigError(
                "hub.max_bytes=null: a limit is needed, here or as hub.max_documents; datasets can have terabytes"
            )
        if self.files is not None and _builder(self.files) is None:
            raise ConfigError(f"hub.files={self.files}: must end in {', '.join(_BUILDERS)}, compressed or not")
        try:
            re.compile(self.starts or "")
        except re.error as error:
            raise ConfigError(f"hub.starts={self.starts}: not a regular expression ({error})") from error

    @classmethod
    def of(cls, settings: dict[str, Any], field: str) -> "Hub":
        """Build the dataset from its node of the configuration."""
        known = {each.name for each in fields(cls)} - {"field"}
        for key, value in settings.items():
            if key not in known:
                raise ConfigError(f"hub.{key}={value}: no such setting; {near_miss(key, known)}")
        if not settings.get("name"):
            raise ConfigError("hub.name=null: a dataset's name is needed, e.g. HuggingFaceFW/fineweb-edu")
        limits: dict[str, Any] = {f"hub.{key}": settings.get(key) for key in ("max_documents", "max_bytes")}
        validate.whole(null="no limit", **limits)
        return cls(**settings, field=field)

    def __str__(self) -> str:
        return f"hub.name={self.name}"

    @property
    def digest(self) -> str:
        """The SHA-256 of everything that determines the documents: the settings, and the contents
        of a local folder.

        A dataset on the hub can change unless `revision` pins it; one that was read is cached and
        not fetched again.
        """
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for file in sorted(Path(self.name).rglob("*")) if Path(self.name).is_dir() else ():
            if file.is_file():
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()

    def documents(self) -> Iterator[bytes]:
        """Yield the UTF-8 bytes of each document, in the dataset's order, until a limit is
        reached."""
        num_bytes = 0
        try:
            for number, text in enumerate(self._join(self._rows()), start=1):
                document = text.encode()
                yield document
                num_bytes += len(document)
                if number == self.max_documents or num_bytes >= (self.max_bytes or float("inf")):
                    return
        except ConfigError:
            raise
        except Exception as error:  # the network, the hub and the dataset's files fail in many ways
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ConfigError(f"{self}: cannot be streamed ({reason}); {_OFFLINE}") from error

    def _rows(self) -> Iterator[str]:
        try:
            import datasets
        except ImportError as error:
            reason = "is streamed by `datasets`: pip install 'hybridlab[hub]'"
            raise ConfigError(f"{self}: {reason}; or {_OFFLINE}") from error
        if self.files is None:
            rows = datasets.load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, streaming=True
            )
        else:
            at = "" if self.revision is None else f"@{self.revision}"
            top = self.name if Path(self.name).is_dir() else f"hf://datasets/{self.name}{at}"
            rows = datasets.load_dataset(
                _builder(self.files) or "", data_files=f"{top}/{self.files}", split=self.split, streaming=True
            )
        for row in rows:
            if self.field not in row:
                raise ConfigError(f"field={self.field}: {self.name} has no such field; {near_miss(self.field, row)}")
            if not isinstance(row[self.field], str):
                raise ConfigError(
                    f"field={self.field}: holds {type(row[self.field]).__name__} in {self.name}, not text"
                )
            yield row[self.field]

    def _join(self, rows: Iterator[str]) -> Iterator[str]:
        """Yield documents: rows joined from each match of `starts` to the next; without it, each
        row is one."""
        start = re.compile(self.starts or "")
        taken, size = [], 0
        for row in rows:
            if taken and start.search(row):
                yield "".join(taken)
                taken, size = [], 0
            taken.append(row)
            size += len(row)
            if size > MOST_BYTES:
                raise ConfigError(f"{self}: a document is longer than {MOST_BYTES:,} bytes, the limit for one")
        yield "".join(taken)


def _builder(files: str) -> str | None:
    path = Path(files)
    return _BUILDERS.get(path.suffix) or _BUILDERS.get(Path(path.stem).suffix)
