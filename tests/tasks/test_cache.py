"""What is kept on disk is never older than what it was made of."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from hybridlab.tasks import file_digests as module
from hybridlab.tasks.cache import computed_once, keep, look_up
from hybridlab.tasks.file_digests import file_digests


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRIDLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are read for their digest, in the order of reading."""
    found: list[str] = []
    read = module._digest

    def count(file: Path) -> str:
        found.append(file.name)
        return read(file)

    monkeypatch.setattr(module, "_digest", count)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "some.txt").write_text("one")
    return tmp_path / "some.txt"


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be ten seconds later."""
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(module.time, "time_ns", lambda: later)


def test_a_file_that_settled_is_read_once(file: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch):
    settle(monkeypatch)
    assert file_digests([file]) == file_digests([file])
    assert reads == ["some.txt"]
    file.write_text("two!")
    assert file_digests([file]) == [module._digest(file)]


def test_a_file_that_changed_just_now_is_read_again(file: Path, reads: list[str]):
    first = file_digests([file])
    about = file.stat()
    file.write_text("two")  # of the same size; on a coarse clock, at the same time
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert file_digests([file]) != first
    assert reads == ["some.txt"] * 2


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    file: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
):
    settle(monkeypatch)
    read = module._digest

    def meddle(path: Path) -> str:
        digest = read(path)
        path.write_text("three")
        return digest

    monkeypatch.setattr(module, "_digest", meddle)
    first = file_digests([file])
    monkeypatch.setattr(module, "_digest", read)
    assert file_digests([file]) != first


def test_another_file_at_the_same_path_is_read(file: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch):
    settle(monkeypatch)
    first = file_digests([file])
    other = file.with_name("other")
    other.write_text("two")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    assert file_digests([file]) != first


def test_an_edited_or_damaged_entry_is_not_believed(home: Path):
    keep("kind", "key", [1, 2.5])
    assert look_up("kind", "key") == [1, 2.5]
    entry = home / "kind" / "key.json"
    written = entry.read_text()
    edited = json.dumps({**json.loads(written), "value": [1, 2.6]})
    for damaged in (edited, written[:-3], "", "[]", "null", "{}"):
        entry.write_text(damaged)
        assert look_up("kind", "key") is None
    entry.with_name("other.json").write_text(written)
    assert look_up("kind", "other") is None, "an entry is of its own key"


def test_nothing_is_lost_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path):
    (tmp_path / "taken").touch()
    monkeypatch.setenv("HYBRIDLAB_CACHE", str(tmp_path / "taken"))
    assert computed_once("kind", "key", lambda: 5) == 5
    assert len(file_digests([file])) == 1


def _compute(log: Path) -> None:
    def compute() -> int:
        with log.open("a") as opened:
            opened.write("x")
        time.sleep(0.2)
        return 7

    assert computed_once("kind", "key", compute) == 7


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_of_several_processes_one_computes(tmp_path: Path):
    log = tmp_path / "log"
    processes = [multiprocessing.get_context("fork").Process(target=_compute, args=(log,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert log.read_text() == "x"
