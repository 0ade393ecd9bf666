"""A sweep's records in one compressed file beside the sweep: a line of JSON per run."""

import lzma
from collections.abc import Iterable
from pathlib import Path

from hybridlab.errors import ConfigError
from hybridlab.records.atomic import write_bytes
from hybridlab.records.record import RunRecord
from hybridlab.records.store import first_made_first

SUFFIX = ".records.jsonl.xz"
LARGEST = 2_000_000  # bytes


def pack(records: Iterable[RunRecord], path: Path) -> Path:
    """Write records into an archive, the first made first; equal records give equal bytes."""
    texts = (record.to_json() for record in first_made_first(records))
    lines = (text.replace("\n", "") for text in texts)  # in JSON, a line break of a text is escaped
    content = lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    if len(content) > LARGEST:
        raise ConfigError(f"{path}: {len(content):,} bytes; an archive holds at most {LARGEST:,}: pack fewer runs")
    write_bytes(path, content)
    return path


def read_archive(path: Path) -> list[RunRecord]:
    """Read the records of an archive that `pack` wrote."""
    try:
        text = lzma.decompress(path.read_bytes()).decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: damaged, or no archive of records ({error})") from error
    return [RunRecord.from_json(line, f"{path}, line {n}") for n, line in enumerate(text.split("\n")[:-1], start=1)]
