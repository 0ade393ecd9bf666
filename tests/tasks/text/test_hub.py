"""Hub datasets, read from local folders in the same formats."""

import sys
from pathlib import Path

import pytest
from hub_folder import write_dataset

from hybridlab.errors import ConfigError
from hybridlab.tasks.text.documents import Documents
from hybridlab.tasks.text.hub import Hub

TEXTS = [f"text {number} — ü\n" for number in range(10)]


def read(settings: dict, field: str = "text") -> list[str]:
    return [text.decode() for text in Hub.of(settings, field).documents()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_dataset(tmp_path_factory.mktemp("hub"), {}, "text", TEXTS))


def test_documents_are_read_from_the_start_up_to_a_limit(folder: str):
    assert read({"name": folder, "max_documents": 3}) == TEXTS[:3]
    assert read({"name": folder, "max_documents": 99}) == TEXTS
    one = len(TEXTS[0].encode())
    assert read({"name": folder, "max_bytes": 2 * one}) == TEXTS[:2]
    assert read({"name": folder, "max_bytes": 2 * one + 1}) == TEXTS[:3]
    assert read({"name": folder, "max_bytes": 2 * one, "max_documents": 1}) == TEXTS[:1]


def test_a_pattern_of_files_is_read_packed_too(tmp_path: Path):
    settings = {"name": str(tmp_path), "files": "arxiv/train/*.jsonl.zst", "max_documents": 5}
    write_dataset(tmp_path, settings, "content", TEXTS)
    assert read(settings, "content") == TEXTS[:5]


def test_rows_of_a_document_are_joined(tmp_path: Path):
    rows = [
        "",
        " = One = \n",
        "",
        " text of one \n",
        " = = Section = = \n",
        " more \n",
        " = Two = \n",
        " text of two \n",
    ]
    write_dataset(tmp_path, {}, "text", rows)
    settings = {"name": str(tmp_path), "starts": r"^ = [^=].* = \n$", "max_documents": 9}
    assert read(settings) == ["", "".join(rows[1:6]), "".join(rows[6:])]
    assert read({**settings, "max_documents": 2}) == ["", "".join(rows[1:6])]


def test_a_set_that_was_read_once_is_not_asked_for_again(folder: str, monkeypatch: pytest.MonkeyPatch):
    task = {"hub": {"name": folder, "max_documents": 9}, "seed": 0, "length": 8, "batch": 2}
    facts = Documents(**task).describe()
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert Documents(**task).describe() == facts


def test_the_digest_tells_settings_and_contents_apart(tmp_path: Path):
    write_dataset(tmp_path, {}, "text", TEXTS)
    base = {"name": str(tmp_path), "max_documents": 3}
    digests = {
        Hub.of(settings, "text").digest for settings in (base, base | {"max_documents": 4}, base | {"revision": "a"})
    }
    write_dataset(tmp_path, {}, "text", TEXTS[1:])
    digests.add(Hub.of(base, "text").digest)
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bytes": 1}, "hub.name=null: a dataset's name is needed, e.g. HuggingFaceFW/fineweb-edu"),
        (
            {"name": "some/set"},
            "hub.max_bytes=null: a limit is needed, here or as hub.max_documents; datasets can have terabytes",
        ),
        (
            {"name": "some/set", "max_bytes": 0},
            "hub.max_bytes=0: must be a whole number of at least 1, or null: no limit",
        ),
        (
            {"name": "some/set", "max_documents": 1.5},
            "hub.max_documents=1.5: must be a whole number of at least 1, or null: no limit",
        ),
        ({"name": "some/set", "max_byte": 5}, "hub.max_byte=5: no such setting; did you mean `max_bytes`?"),
        (
            {"name": "some/set", "max_bytes": 5, "files": "*.csv"},
            "hub.files=*.csv: must end in .parquet, .jsonl, .json, .txt, compressed or not",
        ),
        (
            {"name": "some/set", "max_bytes": 5, "starts": "("},
            "hub.starts=(: not a regular expression (missing ), unterminated subpattern at position 0)",
        ),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        Hub.of(settings, "text")
    assert str(caught.value) == message


@pytest.mark.parametrize("settings", [{}, {"files": "data/*.jsonl.zst"}], ids=["by name", "by files"])
def test_a_hub_that_cannot_be_reached_names_the_offline_choice(settings: dict):
    with pytest.raises(ConfigError) as caught:
        read({"name": "some/set", "max_bytes": 5, **settings})
    line = str(caught.value)
    assert line.startswith("hub.name=some/set: cannot be streamed (")
    assert line.endswith(
        "; without a network: set task.path to local files, or copy an $HF_HOME or $HYBRIDLAB_CACHE that has the dataset"
    )
    assert "\n" not in line


def test_a_missing_library_names_its_extra_and_the_offline_choice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"^hub.name=some/set: .*pip install 'hybridlab\[hub\]'; or without a network: "
    ):
        read({"name": "some/set", "max_bytes": 5})


def test_a_missing_field_names_the_near_miss(folder: str):
    with pytest.raises(ConfigError, match=r"^field=texts: .* has no such field; did you mean `text`\?$"):
        read({"name": folder, "max_bytes": 5}, "texts")
    with pytest.raises(ConfigError, match=r"^field=id: holds int in .*, not text$"):
        read({"name": folder, "max_bytes": 5}, "id")


def test_a_split_that_is_not_there_is_said(folder: str):
    with pytest.raises(ConfigError, match=r"cannot be streamed \(Bad split: tst\. Available splits: \['train'\]\)"):
        read({"name": folder, "split": "tst", "max_bytes": 5})


def test_a_document_without_end_is_refused(folder: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hybridlab.tasks.text.hub.MOST_BYTES", 40)
    assert read({"name": folder, "max_documents": 2}) == TEXTS[:2]
    with pytest.raises(ConfigError, match=r"^hub.name=.*: a document is longer than 40 bytes, the limit for one$"):
        read({"name": folder, "max_documents": 2, "starts": "never"})
