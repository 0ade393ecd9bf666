"""What tests share: a command line in this process, a corpus and a stack that train in a second."""

import os
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # speed is the benchmark's business
settings.load_profile("any machine")

CONF = Path(__file__).parent / "conf"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side on one core each, whatever the shell sets: with two threads each they
    # wait for one another and take many times as long. Read when torch is first imported.
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is first imported: no test needs a network


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mixers", help="run the mixer contract on every YAML of this directory too")
    parser.addoption("--measures", help="run the measures' contract on every YAML of this directory too")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: workers must agree, and some archives hold the time of day."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Corpora are stored where the tests are, not where the user's are."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["HYBRIDLAB_CACHE"] = str(folder)
    return folder


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def hybridlab(capfd, monkeypatch, tmp_path):
    """Call the command line in an empty folder, as a user would; return its code and its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str) -> Outcome:
        from hybridlab.cli import main

        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(int(left.value.code or 0), out, err)

    return call


@pytest.fixture
def corpus(tmp_path_factory):
    """A folder of twelve small documents."""
    folder = tmp_path_factory.mktemp("corpus")
    words = ["the", "state", "of", "union", "is", "strong", "and", "congress", "shall", "meet"]
    for number in range(12):
        draw = random.Random(number)
        text = " ".join(draw.choice(words) for _ in range(60 + 10 * number))
        (folder / f"{number}.txt").write_text(text)
    return folder


@pytest.fixture
def tiny(corpus):
    """Overrides for a run of about a second."""
    return ["--config-dir", str(CONF), "stack=tiny", "trainer=tiny", "task=documents", f"task.path={corpus}"]
