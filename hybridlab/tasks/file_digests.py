"""Digests of files, which are read again only if they may have changed."""

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hybridlab.tasks.cache import digest_of, keep, look_up

SETTLED = 2_000_000_000  # ns after which a further change must show in a file's times, whatever its file system


def file_digests(files: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of the contents of each file, in hexadecimal.

    They are kept in the cache under the paths of all files and what `stat` says of each: size,
    times of modification and of change, device and inode. No program can set the time of change. As
    in git, digests of files that changed less than two seconds before they were read are not kept,
    since another change may have left the same times; nor are those of files that change meanwhile.
    An OSError names a file that cannot be read.
    """
    found = [_stamp(file) for file in files]
    key = digest_of(found)
    known = look_up("digests", key)
    if isinstance(known, list) and len(known) == len(files):
        return known
    started = time.time_ns()
    digests = [_digest(file) for file in files]
    newest = max((max(stamp[2:4]) for stamp in found), default=0)
    if newest < started - SETTLED and found == [_stamp(file) for file in files]:
        keep("digests", key, digests)
    return digests


class Version(NamedTuple):
    """What changes about a file when it is written or replaced."""

    size: int
    modified: int
    inode: int

    @classmethod
    def of(cls, file: Path) -> "Version":
        """Return the present one; an OSError names a file that is not there."""
        about = file.stat()
        return cls(about.st_size, about.st_mtime_ns, about.st_ino)


def _stamp(file: Path) -> tuple[str, int, int, int, int, int]:
    # Opened, for a network file system asks its server only then.
    with file.open("rb") as opened:
        about = os.fstat(opened.fileno())
    return (
        os.path.abspath(file),
        about.st_size,
        about.st_mtime_ns,
        about.st_ctime_ns,
        about.st_dev,
        about.st_ino,
    )


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
