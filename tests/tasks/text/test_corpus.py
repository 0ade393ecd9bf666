"""From documents to splits: what is dropped, what is counted, what is stored."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hybridlab.errors import ConfigError
from hybridlab.tasks.text.corpus import Division, open_corpus
from hybridlab.tasks.text.documents import Documents
from hybridlab.tasks.text.files import Files
from hybridlab.tasks.text.lengths import distribution
from hybridlab.tasks.text.tokeniser import make_tokeniser


def words(seed: int, num: int = 120) -> list[str]:
    return [f"word{number}" for number in np.random.default_rng(seed).integers(5000, size=num)]


def write(folder: Path, texts: list[str]) -> Files:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "texts.jsonl").write_text(lines)
    return Files(str(folder))


def contents(corpus) -> dict[str, list[str]]:
    return {name: [text.tobytes().decode() for text in split.texts(None)] for name, split in corpus.splits.items()}


@pytest.fixture
def doubled(tmp_path: Path) -> Files:
    """Return forty documents, and a copy of each with one word changed."""
    texts = [words(seed) for seed in range(40)]
    return write(tmp_path, [" ".join(text) for text in texts] + [" ".join([*text[:-1], "changed"]) for text in texts])


def partners_apart(found: dict[str, list[str]]) -> Counter:
    """Count the pairs of near duplicates by their splits."""
    where = {}
    for name, texts in found.items():
        for text in texts:
            where.setdefault(text.rpartition(" ")[0], []).append(name)
    return Counter(tuple(sorted(names)) for names in where.values() if len(set(names)) > 1)


def test_near_duplicates_across_splits_are_dropped_from_the_earlier_one(doubled: Files):
    division = Division(0.2, 0.2, "keep")
    kept = open_corpus(doubled, "bytes", division)
    dropped = open_corpus(doubled, "bytes", division._replace(near_duplicates="drop"))
    apart = partners_apart(contents(kept))
    assert min(apart[pair] for pair in [("test", "training"), ("training", "validation"), ("test", "validation")]) > 0
    assert partners_apart(contents(dropped)) == {}
    assert contents(dropped)["test"] == contents(kept)["test"]
    expected = {
        "training": apart["test", "training"] + apart["training", "validation"],
        "validation": apart["test", "validation"],
    }
    for corpus, choice in ((kept, "keep"), (dropped, "drop")):
        assert corpus.facts["near_duplicates"] == {"choice": choice, "similarity": 0.8, **expected}
    for name, num in expected.items():
        assert len(contents(dropped)[name]) == len(contents(kept)[name]) - num
    with pytest.raises(ConfigError) as caught:
        open_corpus(doubled, "bytes", division._replace(near_duplicates="refuse"))
    counts = f"{expected['training']} training and {expected['validation']} validation"
    assert str(caught.value) == f"near_duplicates=refuse: {counts} documents nearly duplicate ones of a later split"


def test_a_split_that_near_duplicates_would_empty_is_refused(tmp_path: Path):
    source = write(tmp_path, [" ".join([*words(0), end]) for end in ("one", "two", "three")])
    with pytest.raises(
        ConfigError, match=r"^near_duplicates=drop: leaves no training documents; near_duplicates=keep keeps them$"
    ):
        open_corpus(source, "bytes", Division())
    assert open_corpus(source, "bytes", Division(near_duplicates="keep")).facts["documents"]["training"] == 1


def test_the_embedded_corpus_has_no_near_duplicates():
    facts = Documents(seed=0, length=512, batch=4).describe()
    assert facts["near_duplicates"] == {"choice": "drop", "similarity": 0.8, "training": 0, "validation": 0}
    assert facts["sha256"] == "e159e5f0a871dd5bf27855faf828091e3e75cf38629550ce96400a9343afc172"


def test_a_byte_pair_encoding_learns_from_the_training_split_alone(tmp_path: Path):
    corpus = open_corpus(write(tmp_path, [" ".join(words(seed, 30)) for seed in range(20)]), {"bpe": 300}, Division())
    training = [text.encode() for text in contents(corpus)["training"]]
    assert corpus.tokeniser.specification == make_tokeniser({"bpe": 300}, training).specification
    assert corpus.tokeniser.specification != make_tokeniser({"bpe": 300}, training[1:]).specification


def test_tokens_spell_the_same_documents_whatever_the_tokeniser(tmp_path: Path):
    source = write(tmp_path, [" ".join(words(seed, 30)) + " naïve" for seed in range(20)])
    by_byte, by_token = (open_corpus(source, tokeniser, Division()) for tokeniser in ("bytes", {"bpe": 300}))
    assert contents(by_byte) == contents(by_token)
    assert by_token.facts["bytes"] == by_byte.facts["bytes"] == by_byte.facts["tokens"]
    for name, split in by_token.splits.items():
        assert by_token.facts["tokens"][name] == split.lengths.sum() < by_byte.facts["tokens"][name]
        assert (split.tokens[split.offsets[:-1]] == by_token.tokeniser.begin).all()
        assert by_token.tokeniser.bytes_of_token[split.tokens].sum() == by_token.facts["bytes"][name]


def test_tokens_are_mapped_from_disk_and_no_text_is_left_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HYBRIDLAB_CACHE", str(tmp_path / "cache"))
    corpus = open_corpus(write(tmp_path, ["one", "two", "three"]), "bytes", Division())
    assert all(isinstance(split.tokens, np.memmap) for split in corpus.splits.values())
    files = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"}
    splits = {f"{name}.{kind}" for name in corpus.splits for kind in ("tokens", "offsets", "added")}
    assert files == splits | {"facts.json", "manifest.json"}


@pytest.mark.parametrize(
    ("texts", "held"),
    [
        ([], "holds no documents"),
        (["", ""], "holds no documents"),
        (["a", "a", ""], "holds 1 distinct document; needs at least 3 documents to split"),
        (["a", "b", "a"], "holds 2 distinct documents; needs at least 3 documents to split"),
    ],
)
def test_too_few_documents_are_refused(tmp_path: Path, texts: list[str], held: str):
    with pytest.raises(ConfigError) as caught:
        open_corpus(write(tmp_path, texts), "bytes", Division())
    assert str(caught.value) == f"path={tmp_path}: {held}"


def test_the_distribution_of_lengths_is_counted_by_powers_of_two():
    found = distribution(np.array([1, 2, 3, 4, 7, 8, 1000]))
    assert found["histogram"] == {"1-1": 1, "2-3": 2, "4-7": 2, "8-15": 1, "512-1023": 1}
    assert (found["quantiles"]["min"], found["quantiles"]["p50"], found["quantiles"]["max"]) == (1, 4, 1000)
