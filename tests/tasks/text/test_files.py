"""Every format is read; a file that cannot be read is refused in one line."""

import gzip
import json
import lzma
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from hybridlab.errors import ConfigError
from hybridlab.tasks.text import formats
from hybridlab.tasks.text.files import EMBEDDED, Files

TEXTS = ["first — ü", "second", "", "third\n\nof two paragraphs", "second"]
OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open, ".zst": zstandard.open}
LINES = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)


def table(texts: list[str | None], field: str = "text") -> pa.Table:
    return pa.table({field: texts, "id": list(range(len(texts)))})


def read(path: Path, **settings: str) -> list[str]:
    return [text.decode() for text in Files(str(path), **settings).documents()]


def test_the_embedded_corpus_is_the_published_one():
    assert sha256(EMBEDDED.read_bytes()).hexdigest() == (
        "bed83a5c61cc29221218d7c5ada6948fddc31039ba65e8e56e5105eebf82e5f0"
    )
    documents = list(Files(None).documents())
    assert len(documents) == len(set(documents)) == 233
    assert sha256(b"".join(documents)).hexdigest() == (
        "805ccd2b2645318eb01caa3d4a0d374bee2544c1d5e48d2c66f8feaf7ae25790"
    )
    with lzma.open(EMBEDDED, "rt", encoding="utf-8") as file:
        names = [json.loads(line)["name"] for line in file]
    assert names == sorted(names)
    assert names[0] == "1790_george_washington_n"


@pytest.mark.parametrize("ending", OPENERS)
@pytest.mark.parametrize("gap", ["\n", "\n\n"])
def test_lines_of_json_are_read_packed_or_not(tmp_path: Path, ending: str, gap: str):
    path = tmp_path / f"some.jsonl{ending}"
    with OPENERS[ending](path, "wb") as file:
        file.write(gap.join(json.dumps({"body": text}, ensure_ascii=False) for text in TEXTS).encode())
    assert read(path, field="body") == TEXTS


@pytest.mark.parametrize("ending", [".txt", ".md", ".txt.gz", ".md.zst"])
def test_a_text_file_is_one_document(tmp_path: Path, ending: str):
    path = tmp_path / f"some{ending}"
    with OPENERS.get(path.suffix, open)(path, "wb") as file:
        file.write("naïve\r\n".encode())
    assert read(path) == ["naïve\r\n"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_column_of_a_table_is_read_and_its_nulls_are_empty(tmp_path: Path, kind: pa.DataType):
    texts = [*TEXTS, None]
    parquet.write_table(pa.table({"body": pa.array(texts, kind)}), tmp_path / "some.parquet", row_group_size=2)
    assert read(tmp_path / "some.parquet", field="body") == [*TEXTS, ""]


def test_a_folder_may_mix_formats_and_hold_others(tmp_path: Path):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "deeper" / "b.md").write_text("b")
    (tmp_path / "deeper" / "c.jsonl.zst").write_bytes(
        zstandard.compress(b'{"text": "c"}') + zstandard.compress(b'\n{"text": "d"}')
    )
    parquet.write_table(table(["e"]), tmp_path / "e.parquet")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    (tmp_path / "folder.txt").mkdir()
    assert sorted(read(tmp_path)) == ["a", "b", "c", "d", "e"]


def test_the_encoding_of_text_files_can_be_set(tmp_path: Path):
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "some.txt").write_bytes("naïve".encode(encoding))
        assert read(tmp_path, encoding=encoding) == ["naïve"]


def test_the_digest_is_that_of_what_is_read(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one")
    digest = Files(str(tmp_path)).digest
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    assert Files(str(tmp_path)).digest == digest
    for other in ({"field": "body"}, {"encoding": "latin-1"}):
        assert Files(str(tmp_path), **other).digest != digest
    (tmp_path / "b.txt").write_text("two")
    assert Files(str(tmp_path)).digest != digest


GOOD = b'{"text": "good"}\n'
FORMATS = ".txt, .md, .jsonl (each also .gz, .xz or .zst) or .parquet"
CUT = "cannot be read: Compressed file ended before the end-of-stream marker was reached"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such file or folder"),
        ("missing.jsonl", None, "no such file or folder"),
        ("book.pdf", b"%PDF", f"must be a folder or a file; formats: {FORMATS}"),
        ("latin.jsonl", GOOD + b'{"text": "\xe9"}', "line 2 is not valid UTF-8 (byte 0xe9 at offset 10 of the line)"),
        ("half.jsonl", b'{"text": "\\ud800"}', "line 1 is not valid UTF-8 (a lone surrogate)"),
        ("broken.jsonl", GOOD + b'{"text": ', "line 2 is not valid JSON"),
        ("deep.jsonl", b"[" * 100_000, "line 1 is not valid JSON"),
        ("other.jsonl", b'{"body": "a"}', 'line 1 is not an object with a "text" that is a string'),
        ("list.jsonl", b'["a"]', 'line 1 is not an object with a "text" that is a string'),
        ("number.jsonl", b'{"text": 5}', 'line 1 is not an object with a "text" that is a string'),
        ("broken.jsonl.xz", b"not packed", "cannot be read: Input format not supported by decoder"),
        ("cut.jsonl.xz", lzma.compress(LINES)[:-4], CUT),
        ("broken.jsonl.gz", b"not packed", "cannot be read: Not a gzipped file (b'no')"),
        ("cut.jsonl.gz", gzip.compress(LINES)[:-9], CUT),
        ("broken.jsonl.zst", b"not packed", "cannot be read: zstd decompressor error: Unknown frame descriptor"),
        ("cut.jsonl.zst", zstandard.compress(LINES)[:-4], "cannot be read: the last frame is truncated"),
        ("latin.txt", b"na\xefve", "not text in utf-8 (byte 0xef at offset 2); set encoding to another"),
        ("program.txt", b"\x7fELF\0\0", "binary, not text (a NUL at offset 4)"),
    ],
)
def test_a_bad_file_is_refused_with_its_path(tmp_path: Path, name: str, content: bytes | None, message: str):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == f"path={path}: {message}"
    if content is not None and "must be" not in message:
        with pytest.raises(ConfigError) as caught:
            read(tmp_path)
        assert str(caught.value) == f"path={tmp_path}: {name}: {message}"


@pytest.mark.parametrize(
    ("column", "damage", "message"),
    [
        (["a"], lambda whole: whole[: len(whole) // 2], "cannot be read: Parquet magic bytes not found in footer"),
        ([1], lambda whole: whole, "its column `text` holds int64, not text"),
        ([b"\xff"], lambda whole: whole, "its column `text` holds binary, not text"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, column: list, damage: Callable, message: str):
    parquet.write_table(table(column), tmp_path / "some.parquet")
    (tmp_path / "some.parquet").write_bytes(damage((tmp_path / "some.parquet").read_bytes()))
    with pytest.raises(ConfigError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"path={tmp_path}: some.parquet: {message}")


def test_a_table_without_the_column_names_the_near_miss(tmp_path: Path):
    parquet.write_table(table(["a"], "texts"), tmp_path / "some.parquet")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "some.parquet")
    assert str(caught.value).endswith("some.parquet: has no column `text`; did you mean `texts`?")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("long.txt", b"a" * 101, "the file"),
        ("long.jsonl", GOOD + b'{"text": "' + b"a" * 101, "line 2"),
        ("bomb.txt.gz", gzip.compress(b"a" * 101), "the file"),
    ],
)
def test_a_document_without_end_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, what: str
):
    monkeypatch.setattr(formats, "MOST_BYTES", 100)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{name}: {what} is longer than 100 bytes, the limit for one document"):
        read(tmp_path)


def test_a_folder_without_texts_is_refused(tmp_path: Path):
    (tmp_path / "some.pdf").touch()
    with pytest.raises(ConfigError, match=r"holds no \.txt, \.md, \.jsonl"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-9", "hex", "undefined"])
def test_an_unknown_encoding_is_refused(encoding: str):
    with pytest.raises(ConfigError, match=f"^encoding={encoding}: no such text encoding"):
        Files(None, encoding=encoding)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_missing_libraries_name_their_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    name = {".gz": "some.parquet", ".zst": "some.jsonl.zst"}[ending]
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pip install 'hybridlab\[data\]'"):
        read(tmp_path)
