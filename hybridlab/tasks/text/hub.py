"""Documents of a Hugging Face dataset, streamed: only what is read is downloaded."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from hybridlab import validate
from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.cache import digest_of, keep, look_up
from hybridlab.tasks.file_digests import file_digests
from hybridlab.tasks.text.formats import MOST_BYTES
from hybridlab.tasks.text.source import Source

_OFFLINE = (
    "without a network: set task.path to local files, or copy an $HF_HOME or $HYBRIDLAB_CACHE that has the dataset"
)
_COMMIT = re.compile("[0-9a-f]{40}")
_SECONDS = 5  # that the hub has to name a commit
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
        """The SHA-256 of everything that determines the documents: the settings, and the commit
        that is read or the files of a local folder.
        """
        settings = asdict(self)
        if self._folder is None:
            return digest_of(settings | {"revision": self.commit or self.revision})
        files = sorted(file for file in self._folder.rglob("*") if file.is_file())
        try:
            digests = file_digests(files)
        except OSError as error:
            raise ConfigError(f"{self}: {error.filename} cannot be read: {error.strerror}") from error
        names = [file.relative_to(self._folder).as_posix() for file in files]
        return digest_of(settings | {"name": list(zip(names, digests, strict=True))})

    @property
    def facts(self) -> dict[str, Any]:
        """The commit, if the hub has named one."""
        return {} if self.commit is None else {"commit": self.commit}

    @cached_property
    def commit(self) -> str | None:
        """The commit that `revision` stands for on the hub, e.g. its `main` of today.

        Without a network it is the last one that the hub named; None if there is none, or for a
        local folder.
        """
        if self._folder is not None:
            return None
        if _COMMIT.fullmatch(self.revision or ""):
            return self.revision
        key = digest_of(self.name, self.revision)
        try:
            from huggingface_hub import HfApi

            commit = HfApi().dataset_info(self.name, revision=self.revision, timeout=_SECONDS).sha
        except Exception:  # no network, no library, no such dataset: reading it says which
            return look_up("commits", key)
        keep("commits", key, commit)
        return commit

    @property
    def _folder(self) -> Path | None:
        """The local folder that `name` is, if it is one."""
        path = Path(self.name).expanduser()
        return path if path.is_dir() else None

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
        folder, revision = self._folder, self.commit or self.revision
        if self.files is None:
            name = self.name if folder is None else str(folder)
            rows = datasets.load_dataset(name, self.config, split=self.split, revision=revision, streaming=True)
        else:
            at = "" if revision is None else f"@{revision}"
            top = f"hf://datasets/{self.name}{at}" if folder is None else folder
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
