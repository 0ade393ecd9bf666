"""Ownership of runs: one launcher at a time trains a run, across processes and machines."""

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridlab.errors import ConfigError, RunFailedError

LOCK = ".lock"
OWNER = "owner.json"
LEASE = 60.0  # seconds without a touch after which an owner on another machine counts as dead


class Claim:
    """The right to write into a run's folder: an owner file, touched several times per lease."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / OWNER
        self.token = uuid.uuid4().hex
        self._ended = threading.Event()
        self._lost = False

    def check(self) -> None:
        """Raise RunFailedError if another launcher took the run over.

        That happens if this process showed no sign of life for a lease.
        """
        if self._lost:
            raise RunFailedError(f"{self.file.parent}: taken over by another launcher; this one stops")

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Own the run while the block runs."""
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": self.token}
        self.file.write_text(json.dumps(owner), encoding="utf-8")
        beat = threading.Thread(target=self._renew, name="claim", daemon=True)
        beat.start()
        try:
            yield
        finally:
            self._ended.set()
            beat.join()
            if not self._lost:
                self.file.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._ended.wait(LEASE / 6):
            try:
                owner = _read(self.file)
                if owner is not None and owner.get("token") != self.token:
                    self._lost = True
                    return
                os.utime(self.file)
            except OSError:
                continue  # a network file system may fail for a moment; the next beat tries again


@contextmanager
def claimed(directory: str | Path) -> Iterator[Claim | None]:
    """Claim a run's directory while the block runs; yield None at once if another launcher owns it.

    On one machine, a lock of the operating system decides, which is released when its owner dies.
    Machines that share the folder but not their locks use the owner file: the run belongs to its
    host until a lease has passed without a touch. Times are compared on the file system's clock, so
    the machines' clocks may differ. A block that writes nothing leaves no folder.
    """
    from filelock import FileLock, Timeout

    directory = Path(directory)
    lock = FileLock(directory / LOCK, timeout=0)
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        yield None
        return
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be written ({error.strerror})") from error
    try:
        if _owned_elsewhere(directory):
            yield None
        else:
            claim = Claim(directory)
            with claim.renewed():
                yield claim
    finally:
        lock.release()
        _remove_if_unused(directory, made)


def has_living_owner(directory: str | Path) -> bool:
    """Return whether a launcher is at work in a run's directory, without disturbing it."""
    file = Path(directory) / OWNER
    owner = _read(file)
    if owner is None:
        return False
    if owner.get("host") == socket.gethostname():
        return _is_alive(owner["pid"])
    return not _is_stale(file)


def _owned_elsewhere(directory: Path) -> bool:
    """Return whether a living owner on another machine has the folder; a local one has the lock."""
    owner = _read(directory / OWNER)
    return owner is not None and owner.get("host") != socket.gethostname() and not _is_stale(directory / OWNER)


def _is_stale(file: Path) -> bool:
    """Return whether the file is older than the lease, measured against a file touched now."""
    now = file.with_name(f".now.{uuid.uuid4().hex}")
    try:
        now.touch()
        return now.stat().st_mtime - file.stat().st_mtime > LEASE
    except FileNotFoundError:
        return True  # released in the meantime
    finally:
        now.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read(file: Path) -> dict | None:
    """Read an owner file; return None if it is missing or damaged."""
    try:
        owner = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else None


def _remove_if_unused(directory: Path, made: list[Path]) -> None:
    """Remove the folders that were created for a run, if it wrote nothing."""
    if {file.name for file in directory.iterdir()} <= {LOCK}:
        (directory / LOCK).unlink(missing_ok=True)
        for folder in made:
            folder.rmdir()
