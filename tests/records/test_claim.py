import json
import os
import socket
import subprocess
import sys
import time

import pytest

from hybridlab.errors import ConfigError, RunFailedError
from hybridlab.records import claim
from hybridlab.records.claim import OWNER, claimed, has_living_owner


def test_a_run_is_claimed_once(tmp_path):
    with claimed(tmp_path / "run") as first, claimed(tmp_path / "run") as second:
        assert first is not None
        assert second is None
    with claimed(tmp_path / "run") as again:
        assert again is not None


def test_a_claim_that_wrote_nothing_leaves_nothing(tmp_path):
    with claimed(tmp_path / "deep" / "er" / "run"):
        assert (tmp_path / "deep" / "er" / "run" / OWNER).exists()
    assert os.listdir(tmp_path) == []


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be written \("), claimed(tmp_path / "taken" / "run"):
        pytest.fail("claimed a folder that cannot be")


def test_another_process_sees_the_claim(tmp_path):
    look = f"from hybridlab.records.claim import claimed\nwith claimed({str(tmp_path)!r}) as mine: print(mine is None)"

    def taken():
        return subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip()

    with claimed(tmp_path):
        assert taken() == "True"
        assert has_living_owner(tmp_path)
    assert not has_living_owner(tmp_path)
    assert taken() == "False"


def test_an_error_lets_go_of_the_claim(tmp_path):
    with pytest.raises(ZeroDivisionError), claimed(tmp_path):
        raise ZeroDivisionError
    with claimed(tmp_path) as again:
        assert again is not None


def test_a_dead_owner_of_this_machine_is_taken_over_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    own(tmp_path, socket.gethostname(), process.pid)
    assert not has_living_owner(tmp_path)
    with claimed(tmp_path) as mine:
        assert mine is not None


def test_an_owner_on_another_machine_keeps_its_run_until_its_lease_is_over(tmp_path):
    own(tmp_path, "elsewhere", 1)
    assert has_living_owner(tmp_path)
    with claimed(tmp_path) as mine:
        assert mine is None
    assert json.loads((tmp_path / OWNER).read_text())["host"] == "elsewhere"

    long_ago = time.time() - claim.LEASE - 5
    os.utime(tmp_path / OWNER, (long_ago, long_ago))
    assert not has_living_owner(tmp_path)
    with claimed(tmp_path) as mine:
        assert mine is not None
        assert json.loads((tmp_path / OWNER).read_text())["host"] == socket.gethostname()


def test_a_claim_is_renewed_and_one_that_was_taken_over_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(claim, "LEASE", 0.06)
    with claimed(tmp_path) as mine:
        long_ago = time.time() - 100
        os.utime(tmp_path / OWNER, (long_ago, long_ago))
        wait_until(lambda: (tmp_path / OWNER).stat().st_mtime > long_ago + 50)
        mine.check()
        own(tmp_path, "elsewhere", 1)
        wait_until(lambda: mine._lost)
        with pytest.raises(RunFailedError, match="taken over by another launcher"):
            mine.check()
    assert json.loads((tmp_path / OWNER).read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "one"}'])
def test_a_damaged_owner_file_names_nobody(tmp_path, text):
    (tmp_path / OWNER).write_text(text)
    assert not has_living_owner(tmp_path)
    with claimed(tmp_path) as mine:
        assert mine is not None


def own(directory, host, pid):
    (directory / OWNER).write_text(json.dumps({"host": host, "pid": pid, "token": "theirs"}))


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
