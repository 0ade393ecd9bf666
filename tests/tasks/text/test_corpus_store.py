"""A stored folder is complete or missing, whichever process is killed and whatever the disk
does."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from hybridlab.errors import ConfigError
from hybridlab.tasks.text.store import stored


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRIDLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpora"


def build(folder: Path) -> None:
    (folder / "data").write_bytes(b"whole")
    with (folder.parent / "builds").open("a") as log:
        log.write("x")


def num_builds(home: Path) -> int:
    return len((home / "builds").read_text())


def test_a_folder_is_built_once(home: Path):
    for _ in range(3):
        assert (stored("key", build) / "data").read_bytes() == b"whole"
    assert num_builds(home) == 1
    assert stored("other", build) != stored("key", build)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "data").write_bytes(b"whale"),
        lambda folder: (folder / "data").write_bytes(b"who"),
        lambda folder: (folder / "data").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text('{"da'),
    ],
    ids=["other bytes", "cut", "lost", "no manifest", "half a manifest"],
)
def test_a_damaged_folder_is_built_anew(home: Path, damage):
    damage(stored("key", build))
    assert (stored("key", build) / "data").read_bytes() == b"whole"
    assert num_builds(home) == 2


def test_a_full_disk_is_one_line_and_leaves_what_was_stored(home: Path):
    stored("key", build)

    def fill(folder: Path) -> None:
        (folder / "data").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "data"))

    with pytest.raises(ConfigError) as caught:
        stored("other", fill)
    reason = "cannot be written (No space left on device); $HYBRIDLAB_CACHE names another folder"
    assert str(caught.value) == f"{home}: {reason}"
    assert {path.name for path in home.iterdir() if path.is_dir()} == {"key"}
    assert stored("key", fill).is_dir()


def test_a_rebuild_that_fails_leaves_what_was_there(home: Path):
    folder = stored("key", build)
    (folder / "data").write_bytes(b"damaged")

    def refuse(folder: Path) -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match=r"^no$"):
        stored("key", refuse)
    assert (folder / "data").read_bytes() == b"damaged"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HYBRIDLAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"corpora: cannot be written \(Not a directory\); \$HYBRIDLAB_CACHE names"):
        stored("key", build)


def _killed(folder: Path) -> None:
    (folder / "data").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def _start(*arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=stored, args=arguments)
    process.start()
    return process


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_killed_build_leaves_nothing_under_the_key_and_the_next_one_clears_up(home: Path):
    process = _start("key", _killed)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (home / "key").exists()
    assert (stored("key", build) / "data").read_bytes() == b"whole"
    assert {path.name for path in home.iterdir() if path.is_dir()} == {"key"}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_of_several_processes_one_builds(home: Path):
    processes = [_start("key", build) for _ in range(4)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert num_builds(home) == 1
