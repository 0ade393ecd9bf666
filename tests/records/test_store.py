import os

import pytest

from hybridlab.errors import ConfigError
from hybridlab.records import store
from tests.records.examples import small_record
from tests.records.reading import read_all


def test_what_was_written_is_read(tmp_path):
    record = small_record()
    path = store.write(record, tmp_path / "demo" / record.run_id)
    assert path == tmp_path / "demo" / record.run_id / "record.json"
    assert store.read(path.parent) == record
    assert sorted(os.listdir(path.parent)) == ["record.json"]


def test_a_failed_write_leaves_the_old_record(tmp_path, monkeypatch):
    path = store.write(small_record(), tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"record\.json: cannot be written \(No space left on device\)$"):
        store.write(small_record(seed=1), tmp_path)
    assert store.read(path.parent).seed == 0
    assert os.listdir(tmp_path) == ["record.json"]


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be written \("):
        store.write(small_record(), tmp_path / "taken" / "run")


def test_records_come_in_the_order_they_were_made(tmp_path):
    made = [("c", "2025-01-02"), ("b", "2025-01-01"), ("a", "2025-01-02")]
    for run_id, created in made:
        store.write(small_record(run_id=run_id, created=created), tmp_path / "deep" / "er" / run_id)
    assert [record.run_id for record in read_all(tmp_path)] == ["b", "a", "c"]


def test_nothing_to_read_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"no runs there \(no record\.json below it\)$"):
        read_all(tmp_path)
    with pytest.raises(ConfigError, match=r"missing: no such directory$"):
        read_all(tmp_path / "missing")
    with pytest.raises(ConfigError, match=r"record\.json: cannot be read \(No such file or directory\)$"):
        store.read(tmp_path)
    (tmp_path / "record.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"record\.json: damaged, not UTF-8$"):
        read_all(tmp_path)
