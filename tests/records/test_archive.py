import lzma

import pytest
from hypothesis import given, settings

from hybridlab.errors import ConfigError
from hybridlab.records import archive
from hybridlab.records.archive import pack, read_archive
from hybridlab.records.json_values import to_text
from hybridlab.records.record import RunRecord
from tests.records.examples import FIELDS, small_record


@given(fields=FIELDS)
@settings(max_examples=25)
def test_a_record_comes_back_as_it_was(fields, tmp_path_factory):
    record = RunRecord(**fields)
    path = tmp_path_factory.mktemp("archive") / "demo.records.jsonl.xz"
    (back,) = read_archive(pack([record], path))
    assert back.to_json() == record.to_json()


def test_the_same_records_are_the_same_bytes_in_any_order(tmp_path):
    records = [small_record(run_id=name, created=f"2025-01-0{place}") for place, name in enumerate("abc", start=1)]
    one, other = pack(records, tmp_path / "one"), pack(records[::-1], tmp_path / "other")
    assert one.read_bytes() == other.read_bytes()
    assert [record.run_id for record in read_archive(one)] == ["a", "b", "c"]


def test_what_is_no_archive_is_one_line(tmp_path):
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(ConfigError, match=r"text: damaged, or no archive of records"):
        read_archive(tmp_path / "text")
    (tmp_path / "other").write_bytes(lzma.compress(f"{to_text({'schema': 99})}\n".encode()))
    with pytest.raises(ConfigError, match=r"other, line 1: schema 99"):
        read_archive(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"gone: cannot be read"):
        read_archive(tmp_path / "gone")


def test_an_archive_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST", 10)
    with pytest.raises(ConfigError, match=r"an archive holds at most 10: pack fewer runs"):
        pack([small_record()], tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
