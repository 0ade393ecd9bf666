"""A character that the standard output cannot encode costs neither a run nor a report."""

import io
import os
import subprocess
import sys

import pytest

from hybridlab.records import store
from hybridlab.report import print_and_write
from hybridlab.stdout import encodable
from hybridlab.training.console import say, show_plan
from tests.report.examples import example


def printed(monkeypatch, work):
    """Return what `work` prints where only ASCII can be printed."""
    written = io.BytesIO()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
        work()
        return written.getvalue()


def test_what_can_be_encoded_stays_as_it_is():
    assert encodable("1 – 2 ß", "utf-8") == "1 – 2 ß"
    assert encodable("1 – 2 ß", "latin-1") == "1 - 2 ß"
    assert encodable("−0.1 [−0.2, 0.0] → 語", "ascii") == "-0.1 [-0.2, 0.0] -> ?"


def test_a_report_is_written_and_printed_where_only_ascii_can_be_printed(monkeypatch, tmp_path):
    store.write(example(), tmp_path / "run")
    assert b"Quality by layer group" in printed(monkeypatch, lambda: print_and_write(tmp_path))
    assert "0–1" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_run_prints_its_plan_and_its_lines_there(monkeypatch):
    assert b"gated_conv" in printed(monkeypatch, lambda: show_plan(example()))
    assert printed(monkeypatch, lambda: say("leak gate: 1 – 2 → ok")) == b"leak gate: 1 - 2 -> ok\n"


def test_an_output_that_fails_does_not_cost_the_files(monkeypatch, tmp_path):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError("no space left on device")

    store.write(example(), tmp_path / "run")
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="no space left"):
        print_and_write(tmp_path)
    assert (tmp_path / "report.md").is_file()
    assert (tmp_path / "report.html").is_file()


def test_the_command_prints_whatever_the_locale(tmp_path):
    store.write(example(), tmp_path / "run")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "C"}
    command = [sys.executable, "-m", "hybridlab", "report", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"0-1" in done.stdout
