"""The same run is found again wherever its data lie; other data, classes or sources are another."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from hybridlab.api import compose
from hybridlab.mixers.attention.full import Full
from hybridlab.sources import is_outside, source_digest
from hybridlab.training.spec import prepare
from tests.records.reading import read_all

MINE = """
from hybridlab.mixers.attention.full import Full
from {helper} import SCALE

class Mine(Full):
    def __init__(self, *, width: int, table: str = "") -> None:
        super().__init__(width=width, heads=2)

    def forward(self, x):
        return SCALE * super().forward(x)
"""


def run_id(corpus, *overrides):
    given = [
        "stack=uniform", "stack.width=32", "stack.groups.all={layers:1,mixer:full}", "task=documents",
        f"task.path={corpus}", "task.length=16", "trainer.max_steps=2", "mixers.full.heads=2",
    ]  # fmt: skip
    return prepare(compose([*given, *overrides])).run_id


def test_the_same_corpus_elsewhere_is_the_same_run_and_a_changed_one_is_not(corpus, tmp_path):
    first = run_id(corpus)
    copied = shutil.copytree(corpus, tmp_path / "elsewhere")
    assert run_id(copied) == first
    assert run_id(os.path.relpath(copied)) == first
    with (copied / "3.txt").open("a") as file:
        file.write(" more")
    assert run_id(copied) != first
    assert run_id(corpus) == first


def test_the_command_line_trains_again_after_the_corpus_changed(hybridlab, tiny, corpus, tmp_path):
    arguments = ["train", *tiny, "logger=none", "trainer.max_steps=2"]
    assert hybridlab(*arguments).code == 0
    text = corpus / "0.txt"
    text.write_text(text.read_text().replace("union", "nation"))
    again = hybridlab(*arguments)
    assert (again.code, "already" in again.out) == (0, False)
    first, second = read_all(tmp_path / "runs")
    assert first.run_id != second.run_id
    assert first.identity["task"]["_content_"] != second.identity["task"]["_content_"]
    assert "path" not in first.identity["task"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's mixer and the module beside it that it imports; they are forgotten afterwards."""
    folder = tmp_path / "own"
    folder.mkdir()
    name, helper = f"mine_{tmp_path.name}", f"helper_{tmp_path.name}"
    (folder / f"{name}.py").write_text(MINE.format(helper=helper))
    (folder / f"{helper}.py").write_text("SCALE = 1.0\n")
    (folder / "conf" / "mixers").mkdir(parents=True)
    (folder / "conf" / "mixers" / "mine.yaml").write_text(f"_target_: {name}.Mine\ntable: ''\n")
    monkeypatch.syspath_prepend(str(folder))
    yield folder / f"{name}.py", folder / f"{helper}.py"
    forget(name, helper)


def forget(*names):
    """Import modules anew, as the next process does."""
    for name in names:
        sys.modules.pop(name, None)


def run_of_mine(folder, corpus, *overrides):
    """Return the id of a run with the mixer of a user's own."""
    stack = ["stack=uniform", "stack.width=32", "stack.groups.all={layers:1,mixer:mine}"]
    data = ["task=documents", f"task.path={corpus}", "task.length=16", "trainer.max_steps=2"]
    return prepare(compose([*stack, *data, *overrides], config_dir=folder / "conf")).run_id


@pytest.mark.parametrize("edited", [0, 1], ids=["the mixer", "what it imports"])
def test_an_edited_mixer_of_a_users_own_is_another_run(corpus, own, edited):
    folder = own[0].parent
    first = run_of_mine(folder, corpus)
    forget(own[0].stem, own[1].stem)
    assert run_of_mine(folder, corpus) == first
    own[edited].write_text(own[edited].read_text() + "\n# another\n")
    forget(own[0].stem, own[1].stem)
    assert run_of_mine(folder, corpus) != first


def test_a_file_that_a_class_from_outside_is_given_counts_by_its_content(corpus, own, tmp_path):
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("1")
    other.write_text("1")
    ids = [run_of_mine(own[0].parent, corpus, f"mixers.mine.table={table}") for table in (one, other)]
    assert ids[0] == ids[1]
    other.write_text("22")
    assert run_of_mine(own[0].parent, corpus, f"mixers.mine.table={other}") != ids[0]


def test_a_raised_version_is_another_run(corpus, monkeypatch):
    first = run_id(corpus)
    monkeypatch.setattr(Full, "version", Full.version + 1)
    assert run_id(corpus) != first


def test_what_is_measured_is_no_part_of_a_run(corpus):
    assert run_id(corpus, "evaluation=full") == run_id(corpus, "evaluation.limit=64") == run_id(corpus)


def test_classes_of_the_libraries_are_not_from_outside():
    from lightning.pytorch import Trainer

    assert not is_outside(Full)
    assert not is_outside(Trainer)
    assert is_outside(Path)


def test_the_digest_of_an_installed_class_is_that_of_its_module_and_version():
    from decimal import Decimal
    from fractions import Fraction

    assert source_digest(Fraction) != source_digest(Decimal)
    assert source_digest(Fraction) == source_digest(Fraction)
