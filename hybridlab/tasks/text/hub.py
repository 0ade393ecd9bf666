"""Documents of a Hugging Face dataset, streamed: nothing is downloaded but what is read."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.text.formats import MOST_BYTES

_OFFLINE = (
    "without a network: give files from elsewhere as task.path, or copy the $HF_HOME or $HYBRIDLAB_CACHE that has it"
)
_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".txt": "text"}


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A dataset by its name on the hub, or a local folder of the same files, read from its start up to a limit.

    `files` is a pattern of files inside it, for a dataset that `datasets` cannot load by its name. Where a row is not a
    document but a line of one, `starts` is a regular expression for the first row of each.
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
        for key in ("max_documents", "max_bytes"):
            value = getattr(self, key)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"hub.{key}={value}: a whole number of at least 1 is needed, or null")
        if self.max_documents is None and self.max_bytes is None:
            raise ConfigError(
                "hub.max_bytes=None: a limit is needed, here or as hub.max_documents: sets may be terabytes"
            )
        if self.files is not None and _builder(self.files) is None:
            raise ConfigError(f"hub.files={self.files}: must end in {', '.join(_BUILDERS)}, packed or not")
        try:
            re.compile(self.starts or "")
        except re.error as error:
            raise ConfigError(f"hub.starts={self.starts}: not a regular expression ({error})") from error

    @classmethod
    def of(cls, settings: dict[str, Any], field: str) -> "Hub":
        """Make one from a node of the configuration."""
        known = {each.name for each in fields(cls)} - {"field"}
        for key, value in settings.items():
            if key not in known:
                raise ConfigError(f"hub.{key}={value}: no such setting; {near_miss(key, known)}")
        if not settings.get("name"):
            raise ConfigError("hub.name=None: a dataset's name is needed, e.g. HuggingFaceFW/fineweb-edu")
        return cls(**settings, field=field)

    def __str__(self) -> str:
        return f"hub.name={self.name}"

    @property
    def digest(self) -> str:
        """The SHA-256 of what decides the documents: the settings, and the contents of a local folder.

        What the hub holds under a name may change; `revision` pins it. A set that was read once is not asked for again.
        """
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for file in sorted(Path(self.name).rglob("*")) if Path(self.name).is_dir() else ():
            if file.is_file():
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()

    def documents(self) -> Iterator[bytes]:
        """Yield the UTF-8 bytes of each document, in the order of the dataset, until a limit is reached."""
        num_bytes = 0
        try:
            for number, text in enumerate(self._joined(self._rows()), start=1):
                document = text.encode()
                yield document
                num_bytes += len(document)
                if number == self.max_documents or num_bytes >= (self.max_bytes or float("inf")):
                    return
        except ConfigError:
            raise
        except Exception as error:  # whatever the network, the hub or a dataset's files have in store
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

    def _joined(self, rows: Iterator[str]) -> Iterator[str]:
        """Join the rows from each that `starts` matches; without it, each row is a document."""
        start = re.compile(self.starts or "")
        taken, size = [], 0
        for row in rows:
            if taken and start.search(row):
                yield "".join(taken)
                taken, size = [], 0
            taken.append(row)
            size += len(row)
            if size > MOST_BYTES:
                raise ConfigError(f"{self}: a document is longer than {MOST_BYTES:,} bytes, the most that one may have")
        yield "".join(taken)


def _builder(files: str) -> str | None:
    path = Path(files)
    return _BUILDERS.get(path.suffix) or _BUILDERS.get(Path(path.stem).suffix)
