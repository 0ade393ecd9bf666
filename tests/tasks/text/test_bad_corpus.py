"""A bad corpus ends in one line and exit code 2, and leaves the stored corpora untouched."""

import gzip
import json
import lzma
import resource
from pathlib import Path

import pytest
import zstandard
from tokenizers import Tokenizer, models, normalizers

from hybridlab.tasks.text import formats
from hybridlab.tasks.text.documents import Documents

LINES = b"".join(json.dumps({"text": f"document {number} " * 40}).encode() + b"\n" for number in range(9))
LOSSY = Tokenizer(models.BPE())
LOSSY.normalizer = normalizers.Lowercase()
CASES = {
    "a binary file": ("some.txt", b"\x7fELF\0", [], "some.txt: binary, not text (a NUL at offset 4)"),
    "another encoding": ("some.md", b"na\xefve", [], "some.md: not text in utf-8 (byte 0xef at offset 2); set encoding to another"),
    "a gzip file that is cut": ("some.jsonl.gz", gzip.compress(LINES)[:-9], [], "some.jsonl.gz: cannot be read: Compressed file ended"),
    "an xz file that is cut": ("some.jsonl.xz", lzma.compress(LINES)[:-9], [], "some.jsonl.xz: cannot be read: Compressed file ended"),
    "a Zstandard file that is cut": ("some.jsonl.zst", zstandard.compress(LINES)[:-9], [], "some.jsonl.zst: cannot be read: the last frame is truncated"),
    "a table that is cut": ("some.parquet", b"PAR1 and no more", [], "some.parquet: cannot be read: Parquet magic bytes not found"),
    "one huge line": ("some.jsonl", b'{"text": "' + b"a" * 20_000, [], "some.jsonl: line 1 is longer than 10,000 bytes"),
    "empty documents": ("some.jsonl", b'{"text": ""}\n' * 5, [], "holds no documents"),
    "nothing to read": ("some.pdf", b"%PDF", [], "holds no .txt, .md, .jsonl"),
    "no such field": ("some.jsonl", LINES, ["task.field=body"], 'some.jsonl: line 1 is not an object with a "body" that is a string'),
}  # fmt: skip
SETTINGS = {
    "an unknown encoding": (["task.encoding=utf-9"], "`task.encoding=utf-9`: no such text encoding"),
    "a vocabulary below the bytes": (["task.tokeniser={bpe:9}"], "`task.tokeniser.bpe=9`: must be {bpe: n}"),
    "no tokeniser file": (["task.tokeniser=nowhere"], "`task.tokeniser=nowhere`: cannot be read (No such file or directory)"),
    "near duplicates of a wrong choice": (["task.near_duplicates=dorp"], "`task.near_duplicates=dorp`: did you mean `drop`?"),
    "lengths of a wrong choice": (["task.length_distribution=unifrom"], "`task.length_distribution=unifrom`: did you mean `uniform`?"),
    "a hub without a limit": (["task=pg19", "task.hub.max_bytes=null"], "`task.hub.max_bytes=null`: a limit is needed"),
    "an unknown setting of the hub": (["task=pg19", "task.hub.max_byte=3"], "`task.hub.max_byte=3`: no such setting; did you mean `max_bytes`?"),
    "a hub that cannot be reached": (["task=proof_pile"], "`task.hub.name=EleutherAI/proof-pile-2`: cannot be streamed ("),
}  # fmt: skip


def refused(outcome, message: str) -> None:
    assert outcome.err.startswith(f"hybridlab: {message}")
    assert outcome.err.count("\n") == 1
    assert outcome.code == 2
    assert "Traceback" not in outcome.out + outcome.err


@pytest.fixture
def folders(cache: Path):
    """Return the folders of the corpora in the cache, finished or not."""
    return lambda: {path for path in (cache / "corpora").glob("*") if path.is_dir()}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_one_line_and_nothing_is_stored(case, hybridlab, tmp_path, monkeypatch, folders):
    name, content, overrides, message = CASES[case]
    monkeypatch.setattr(formats, "MOST_BYTES", 10_000)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / name).write_bytes(content)
    stored = folders()
    refused(hybridlab("train", "task=documents", "task.path=corpus", *overrides), f"`task.path=corpus`: {message}")
    assert folders() == stored
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


@pytest.mark.parametrize("case", SETTINGS)
def test_a_bad_setting_is_one_line_and_nothing_is_stored(case, hybridlab, tmp_path, folders):
    overrides, message = SETTINGS[case]
    stored = folders()
    refused(hybridlab("train", *overrides), message)
    assert folders() == stored
    assert list(tmp_path.iterdir()) == []


def test_a_tokeniser_that_loses_text_is_one_line(hybridlab, tiny, tmp_path):
    LOSSY.save(str(tmp_path / "tokenizer.json"))
    name = f"`task.tokeniser={tmp_path}/tokenizer.json`"
    outcome = hybridlab("train", *tiny, f"task.tokeniser={tmp_path}/tokenizer.json")
    refused(outcome, f"{name}: loses text, which makes bits per byte meaningless, e.g. at '")


def test_a_full_disk_is_one_line_and_leaves_what_was_stored(hybridlab, corpus, folders, cache):
    """A limit on the size of files stands in for a full disk."""
    task = {"path": str(corpus), "seed": 0, "length": 32, "batch": 1}
    Documents(**task)
    stored = folders()
    (corpus / "more.txt").write_text("more " * 2000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        outcome = hybridlab("check", "task=documents", f"task.path={corpus}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused(outcome, f"`task`: {cache}/corpora: cannot be written (File too large); $HYBRIDLAB_CACHE names another")
    assert folders() == stored
    Documents(**task)
    assert len(folders()) == len(stored) + 1
