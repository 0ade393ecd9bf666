"""The content of a task is the digest of the data it reads: not of where they lie."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_folder import write_dataset
from published_data import WRITERS, write_cifar, write_cifar_binary, write_pairs, write_pathfinder

from hybridlab.errors import ConfigError
from hybridlab.tasks.base import Task
from hybridlab.tasks.lra.image import LRAImage
from hybridlab.tasks.lra.pathfinder import LRAPathfinder
from hybridlab.tasks.lra.retrieval import LRARetrieval
from hybridlab.tasks.lra.text import LRAText
from hybridlab.tasks.synthetic.mqar import MQAR
from hybridlab.tasks.synthetic.passkey import Passkey
from hybridlab.tasks.synthetic.planted_recall import PlantedRecall
from hybridlab.tasks.text import corpus as corpora
from hybridlab.tasks.text.documents import Documents
from hybridlab.tasks.text.files import EMBEDDED, Files
from hybridlab.tasks.text.hub import Hub
from hybridlab.tasks.text.tokeniser import make_tokeniser

TEXTS = [f"{'text ' * number}naïve {number}\n" * 3 for number in range(12)]
LRA: dict[str, Any] = {
    "lra_image": LRAImage,
    "lra_pathfinder": LRAPathfinder,
    "lra_retrieval": LRARetrieval,
    "lra_text": LRAText,
}


def write(folder: Path, texts: list[str] = TEXTS, ending: str = ".txt") -> Path:
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f"{number}{ending}").write_text(text, encoding="utf-8")
    return folder


def content(path: Any, **settings: Any) -> str:
    return documents(path, **settings).content()


def documents(path: Any, **settings: Any) -> Documents:
    given: dict[str, Any] = {"seed": 0, "length": 8, "batch": 2, "near_duplicates": "keep"} | settings
    return Documents(path=None if path is None else str(path), **given)


def test_the_same_corpus_elsewhere_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = write(tmp_path / "here")
    expected = content(here)
    shutil.copytree(here, tmp_path / "copied")
    (tmp_path / "link").symlink_to(here)
    (tmp_path / "of links").mkdir()
    for file in here.iterdir():
        (tmp_path / "of links" / file.name).symlink_to(file)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "linked").symlink_to(here)
    (tmp_path / "deep" / "back").symlink_to(tmp_path / "deep")
    write(tmp_path / "renamed", TEXTS[::-1], ".v2.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("copied", "link", "of links", "deep", "renamed", "here", "./here/", "~/here", f"{here}/", "~/here/"):
        assert content(path) == expected, path


def test_one_file_is_the_same_in_a_folder_or_alone(tmp_path: Path):
    folder = tmp_path / "addresses"
    folder.mkdir()
    (folder / "other.jsonl.xz").write_bytes(EMBEDDED.read_bytes())
    for path in (folder, folder / "other.jsonl.xz"):
        assert Files(str(path)).digest == Files(None).digest
    lines = tmp_path / "lines"
    lines.mkdir()
    (lines / "some.jsonl").write_text("".join(f'{{"text": "a longer text {n}"}}\n' for n in range(5)))
    assert content(lines) == content(lines / "some.jsonl")


def test_changed_files_are_others_and_back_again(tmp_path: Path):
    here = write(tmp_path / "here")
    before = content(here)
    original = (here / "3.txt").read_text(encoding="utf-8")
    (here / "3.txt").write_text(original.replace("naïve", "naive!"), encoding="utf-8")  # of the same size
    assert content(here) != before
    (here / "3.txt").write_text(original, encoding="utf-8")
    assert content(here) == before
    (here / "new.txt").write_text("new", encoding="utf-8")
    assert content(here) != before
    (here / "new.txt").unlink()
    (here / "notes.log").write_text("no document", encoding="utf-8")
    assert content(here) == before


def test_a_change_that_restores_size_and_times_is_seen(tmp_path: Path):
    here = write(tmp_path / "here")
    file, before = here / "3.txt", content(here)
    for name in here.iterdir():
        os.utime(name, ns=(10**18, 10**18))
    assert content(here) == before
    file.write_bytes(file.read_bytes().replace(b"text", b"tezt"))
    os.utime(file, ns=(10**18, 10**18))
    assert content(here) != before


def test_what_reads_the_same_bytes_otherwise_is_another(tmp_path: Path):
    latin = tmp_path / "latin"
    latin.mkdir()
    for number in range(5):
        (latin / f"{number}.txt").write_bytes(f"na\u00efve {number}".encode("latin-1"))
    assert content(latin, encoding="latin-1") != content(latin, encoding="cp437")
    fields = tmp_path / "fields"
    fields.mkdir()
    lines = "".join(f'{{"text": "one text {n}", "body": "other text {n}"}}\n' for n in range(5))
    (fields / "some.jsonl").write_text(lines)
    assert content(fields) != content(fields, field="body")


def test_the_bytes_of_a_tokeniser_file_decide(tmp_path: Path):
    here = write(tmp_path / "here")
    tokeniser = make_tokeniser({"bpe": 270}, [text.encode() for text in TEXTS])
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.json").write_text(tokeniser.specification)
    by_file = content(here, tokeniser=str(tmp_path / "one"))
    assert content(here, tokeniser=str(tmp_path / "two" / "tokenizer.json")) == by_file
    assert (
        len({by_file, content(here), content(here, tokeniser={"bpe": 270}), content(here, tokeniser={"bpe": 280})}) == 4
    )
    other = make_tokeniser({"bpe": 270}, [b"other merges, other tokens"])
    (tmp_path / "one" / "tokenizer.json").write_text(other.specification)
    assert content(here, tokeniser=str(tmp_path / "one")) != by_file
    assert documents(here, tokeniser=str(tmp_path / "one")).content_settings == ("path", "hub", "tokeniser")
    assert documents(here, tokeniser={"bpe": 270}).content_settings == ("path", "hub")


def test_files_that_change_while_a_corpus_is_built_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYBRIDLAB_CACHE", str(tmp_path / "cache"))
    here = write(tmp_path / "here")
    divide = corpora.divide

    def meddle(*arguments: Any) -> Any:
        (here / "3.txt").write_text("meanwhile")
        return divide(*arguments)

    monkeypatch.setattr(corpora, "divide", meddle)
    with pytest.raises(ConfigError, match=r"^path=.*: the files changed while they were read; start again$"):
        content(here)
    monkeypatch.setattr(corpora, "divide", divide)
    assert content(here) == content(shutil.copytree(here, tmp_path / "copied"))


def test_what_was_opened_does_not_change(tmp_path: Path):
    here = write(tmp_path / "here")
    task = documents(here)
    before, batch = task.content(), task.train_batch(7)
    shutil.rmtree(here)
    assert task.content() == before
    assert task.train_batch(7).inputs.equal(batch.inputs)


@pytest.mark.parametrize("kind", [Passkey, PlantedRecall])
def test_text_around_what_is_planted_counts(kind: Any, tmp_path: Path):
    here = write(tmp_path / "here")

    def planted(path: Path | None) -> Task:
        return kind(seed=0, batch=2, length=160, path=None if path is None else str(path), held_out=4, multiples=(1,))

    assert planted(here).content() == planted(shutil.copytree(here, tmp_path / "copied")).content()
    assert planted(here).content_settings == ("path",)
    before = planted(here).content()
    (here / "3.txt").write_text("changed")
    assert len({before, planted(here).content(), planted(None).content()}) == 3


def test_a_local_dataset_is_what_it_holds(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_dataset(tmp_path / name, {}, "text", TEXTS)

    def local(name: str) -> str:
        return content(None, hub={"name": str(tmp_path / name), "max_documents": 9})

    before = local("one")
    assert local("two") == before
    write_dataset(tmp_path / "two", {}, "text", TEXTS[1:])
    assert local("two") != before


class _Named:
    sha = "0" * 40


def test_a_dataset_is_pinned_to_the_commit_that_the_hub_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub

    monkeypatch.setenv("HYBRIDLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: _Named)
    settings = {"name": "some/set", "max_documents": 3}
    known = Hub.of(settings, "text")
    assert known.facts == {"commit": _Named.sha}
    pinned = Hub.of({**settings, "revision": "1" * 40}, "text")
    assert pinned.commit == "1" * 40
    assert known.digest != pinned.digest
    monkeypatch.setattr(_Named, "sha", "1" * 40)
    moved = Hub.of(settings, "text")
    assert moved.digest == pinned.digest, "main moved there"

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    assert Hub.of(settings, "text").digest == moved.digest, "the last one that was named"
    unknown = Hub.of({**settings, "name": "other/set"}, "text")
    assert unknown.commit is None
    assert unknown.facts == {}


@pytest.mark.parametrize("name", sorted(LRA))
def test_published_data_elsewhere_are_the_same(name: str, tmp_path: Path):
    here = WRITERS[name](tmp_path / "here")
    before = LRA[name](seed=0, path=str(here))
    assert before.content_settings == ("path",)
    for path in (shutil.copytree(here, tmp_path / "copied"), f"{here}/"):
        assert LRA[name](seed=1, path=str(path)).content() == before.content()


CHANGES: dict[str, Callable[[Path], Path]] = {
    "lra_image": lambda folder: folder / "test_batch",
    "lra_pathfinder": lambda folder: folder / "imgs" / "1" / "sample_7.png",
    "lra_retrieval": lambda folder: folder / "new_aan_pairs.test.tsv",
    "lra_text": lambda folder: folder / "train" / "pos" / "5_1.txt",
}
REPLACEMENTS: dict[str, Callable[[Path], Path]] = {
    "lra_image": lambda folder: folder / "data_batch_1",
    "lra_pathfinder": lambda folder: folder / "imgs" / "1" / "sample_9.png",
    "lra_retrieval": lambda folder: folder / "new_aan_pairs.eval.tsv",
    "lra_text": lambda folder: folder / "train" / "pos" / "6_1.txt",
}


@pytest.mark.parametrize("name", sorted(LRA))
def test_published_data_that_changed_are_others(name: str, tmp_path: Path):
    here = WRITERS[name](tmp_path / "here")
    before = LRA[name](seed=0, path=str(here)).content()
    CHANGES[name](here).write_bytes(REPLACEMENTS[name](here).read_bytes())
    assert LRA[name](seed=0, path=str(here)).content() != before


def test_the_same_pictures_in_another_format_are_the_same(tmp_path: Path):
    paths = write_cifar(tmp_path / "python"), write_cifar_binary(tmp_path / "binary")
    assert len({LRAImage(seed=0, path=str(path)).content() for path in paths}) == 1


def test_an_example_that_changes_while_it_may_be_read_is_refused(tmp_path: Path):
    pairs = LRARetrieval(seed=0, path=str(write_pairs(tmp_path / "pairs")))
    with (tmp_path / "pairs" / "new_aan_pairs.train.tsv").open("a") as file:
        file.write("1\ta\tb\tone\ttwo\n")
    with pytest.raises(ConfigError, match=r"new_aan_pairs\.train\.tsv changed while it was read; start again$"):
        pairs.train_batch(0)
    with pytest.raises(ConfigError, match="changed while it was read"):
        pairs.content()
    pictures = LRAPathfinder(seed=0, path=str(write_pathfinder(tmp_path / "paths")))
    name, _ = pictures.splits["test"].listed[0]
    (tmp_path / "paths" / name).write_bytes(b"other")
    with pytest.raises(ConfigError, match=rf"{name} changed while it was read; start again$"):
        next(pictures.evaluation_batches("test", window=1, stride=1, limit=None, batch=1))


def test_settings_decide_what_is_generated():
    assert MQAR(seed=0, batch=2, vocabulary=64, length=16, pairs=2, held_out=4).content() == ""
    assert Task().content() == ""
    assert Task.content_settings == ()


def test_names_of_files_decide_nothing_but_the_format(tmp_path: Path):
    digests = set()
    for name in ("a.b.txt", "v1.0.txt", ".hidden.txt"):
        (tmp_path / name).write_text("same")
        digests.add(Files(str(tmp_path / name)).digest)
    assert len(digests) == 1
    (tmp_path / "a.md").write_text("same")
    assert Files(str(tmp_path / "a.md")).digest not in digests
