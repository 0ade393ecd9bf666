"""Every tokeniser scores the same bytes of the same documents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.synthetic.mqar import MQAR
from hybridlab.tasks.synthetic.planted_recall import PlantedRecall
from hybridlab.tasks.text import ngram
from hybridlab.tasks.text.documents import Documents
from hybridlab.tasks.text.recall import Rule, frequent_ngrams, recall_facts
from hybridlab.tasks.text.scored_text import end_of_prefix
from hybridlab.tasks.text.split import Split
from hybridlab.tasks.text.tokeniser import Bytes, Subwords, Tokeniser, make_tokeniser

SAMPLE = ["the state of the union", "naïve – 語 🙂 naïve", "abcé€ abcé€"]
WHOLE: dict[str, Any] = {"window": 8, "stride": 8}


def with_word_marks(**normaliser: Any) -> Tokenizer:
    """Return a tokeniser with SentencePiece's marks, that knows some words and every byte."""
    pieces = ["▁", "a", "b", "▁a", "ab", "▁ab"]
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {piece: 256 + n for n, piece in enumerate(pieces)}
    merges = [("▁", "a"), ("a", "b"), ("▁a", "b")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend("▁")] if normaliser else []), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


TOKENISERS: dict[str, Tokeniser] = {
    "bytes": Bytes(),
    "few merges": make_tokeniser({"bpe": 262}, [text.encode() for text in SAMPLE]),
    "many merges": make_tokeniser({"bpe": 320}, [text.encode() * 3 for text in SAMPLE]),
    "word marks": Subwords(with_word_marks().to_str(), "some"),
    "a space in front": Subwords(with_word_marks(prepend=True).to_str(), "some"),
}


def split_of(tokeniser: Tokeniser, texts: list[bytes]) -> Split:
    tokens = [tokeniser.tokens(text) for text in texts]
    flat = np.concatenate([np.concatenate([[tokeniser.begin], each]) for each in tokens]).astype("<u2")
    offsets = np.cumsum([0, *(1 + len(each) for each in tokens)])
    spelt = [int(tokeniser.bytes_of_token[each].sum()) for each in tokens]
    return Split(flat, offsets, tokeniser, np.array([n > len(text) for n, text in zip(spelt, texts, strict=True)]))


characters = st.text(st.sampled_from("ab \n\té€語🙂e\u0301"), min_size=1, max_size=40)


@given(texts=st.lists(characters, min_size=1, max_size=5), limit=st.integers(1, 60))
@settings(max_examples=30)
def test_all_tokenisers_read_the_same_bytes_up_to_the_limit(texts: list[str], limit: int):
    encoded = [text.encode() for text in texts]
    for name, tokeniser in TOKENISERS.items():
        split = split_of(tokeniser, encoded)
        start, lengths = split.prefixes(limit)
        read = [text.tobytes() for text in start.texts(lengths)]
        for text, part in zip(encoded, read, strict=True):
            assert text.startswith(part), name
            part.decode()
            characters_in = text.decode()
            longer = characters_in[: len(part.decode()) + 1].encode()
            assert len(part) <= limit or len(part.decode()) == 1, name
            assert part == text or len(longer) > limit, name
        batch = start.sequences(spans_of(lengths), int(lengths.max()))
        supervised = batch.targets != IGNORED
        by_token = tokeniser.bytes_of_token[batch.targets[supervised].numpy()]
        counted = by_token if batch.num_bytes is None else batch.num_bytes[supervised].numpy()
        assert counted.sum() == sum(map(len, read)), name


def spans_of(lengths: np.ndarray):
    from hybridlab.tasks.text.windows import starts

    return next(starts(lengths, len(lengths)))


@pytest.mark.parametrize(
    ("text", "limit", "read"),
    [
        ("abc", None, 3),
        ("abc", 2, 2),
        ("aé", 2, 1),
        ("aé", 3, 3),
        ("é", 1, 2),
        ("🙂b", 1, 4),
        ("a🙂b", 4, 1),
        ("", 5, 0),
    ],
)
def test_whole_characters_are_read_and_one_at_least(text: str, limit: int | None, read: int):
    assert end_of_prefix(np.frombuffer(text.encode(), np.uint8), limit) == read


@pytest.fixture(scope="module")
def tasks(documents: Callable[..., Documents], tmp_path_factory: pytest.TempPathFactory) -> list[Documents]:
    """Documents by bytes, by two byte-pair encodings, and by one that adds a space in front."""
    file = tmp_path_factory.mktemp("tokeniser") / "tokenizer.json"
    with_word_marks(prepend=True).save(str(file))
    return [documents(tokeniser=each) for each in ("bytes", {"bpe": 262}, {"bpe": 300}, str(file))]


@pytest.mark.parametrize("limit", [None, 1, 30, 71, 10_000])
def test_tokenisers_score_one_text_and_get_one_baseline(tasks: list[Documents], limit: int | None):
    for split in ("validation", "test"):
        assert len({task.scored(split, **WHOLE, limit=limit) for task in tasks}) == 1
        (num_bytes,) = {task.scored_bytes(split, **WHOLE, limit=limit) for task in tasks}
        baselines = [task.baselines(split, window=8, limit=limit) for task in tasks]
        assert all(each == baselines[0] for each in baselines)
        for task in tasks:
            counted = 0
            for batch in task.evaluation_batches(split, window=9, stride=4, limit=limit, batch=3):
                supervised = batch.targets != IGNORED
                by_token = task.bytes_of_token[batch.targets[supervised].numpy()]
                counted += int((by_token if batch.num_bytes is None else batch.num_bytes[supervised].numpy()).sum())
            assert counted == num_bytes


def test_bytes_read_what_they_read_before_the_limit(documents: Callable[..., Documents], tmp_path: Path):
    (tmp_path / "ascii").mkdir()
    for number in range(9):
        (tmp_path / "ascii" / f"{number}.txt").write_text(f"document {number} " * 9)
    task = documents(path=str(tmp_path / "ascii"), near_duplicates="keep")
    split = task.splits["test"]
    for limit in (1, 20, 1000):
        assert split.prefixes(limit).split is split
        assert split.prefixes(limit).lengths.tolist() == np.minimum(split.lengths, limit).tolist()


def test_the_text_decides_the_digest_and_nothing_else(documents: Callable[..., Documents]):
    task = documents()
    digest = task.scored("test", window=8, stride=8, limit=30)
    assert documents(seed=3, length=8, batch=1, packed=True).scored("test", window=16, stride=2, limit=30) == digest
    others = [
        task.scored("validation", window=8, stride=8, limit=30),
        task.scored("test", window=8, stride=8, limit=31),
        task.scored("test", window=8, stride=8, limit=None),
        documents(test_share=0.3).scored("test", window=8, stride=8, limit=30),
        documents(length_distribution="corpus").scored("test", window=8, stride=8, limit=30),
        documents(length_distribution="uniform").scored("test", window=8, stride=8, limit=30),
    ]
    assert len({digest, *others}) == 7
    assert task.scored("test", window=8, stride=8, limit=10_000) == task.scored("test", window=8, stride=8, limit=None)


def test_validation_is_of_as_many_bytes_for_each_tokeniser(documents: Callable[..., Documents]):
    for tokeniser in ("bytes", {"bpe": 270}):
        task = documents(tokeniser=tokeniser, validation_share=0.4)
        num_bytes = sum(
            int(task.bytes_of_token[batch.targets[batch.targets != IGNORED].numpy()].sum())
            for batch in task.validation_batches()
        )
        assert num_bytes == task.scored_bytes("validation", **WHOLE, limit=1024)


def test_recall_is_marked_in_what_is_read(documents: Callable[..., Documents]):
    rule = Rule(2, 3)
    task = documents(tokeniser={"bpe": 270}, recall=rule._asdict(), test_share=0.5)
    training = task.splits["training"]
    spans = zip(training.offsets, training.lengths, strict=False)
    frequent = frequent_ngrams([training.tokens[start + 1 : start + 1 + length] for start, length in spans], rule)
    cut, lengths = task.splits["test"].prefixes(40)
    (batch,) = task.evaluation_batches("test", window=99, stride=99, limit=40, batch=99)
    hits = 0
    for row, document in enumerate(batch.slices["document"][:, 0].tolist()):
        start, length = int(cut.offsets[document]), int(lengths[document])
        tokens = cut.tokens[start + 1 : start + 1 + length]
        expected = recall_facts(tokens, rule, frequent)
        assert batch.targets[row, :length].tolist() == tokens.tolist()
        assert batch.slices["recall"][row, :length].tolist() == expected.recall.tolist()
        assert batch.slices["recall_distance"][row, :length].tolist() == expected.distance.tolist()
        hits += int(expected.recall.sum())
    assert hits > 0


def test_n_gram_models_are_fitted_once_for_a_text(
    documents: Callable[..., Documents], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HYBRIDLAB_CACHE", str(tmp_path))
    calls: list[int] = []
    fit = ngram.baselines

    def count(*arguments: Any) -> dict[int, float]:
        calls.append(1)
        return fit(*arguments)

    monkeypatch.setattr(ngram, "baselines", count)
    for tokeniser in ("bytes", {"bpe": 270}, "bytes"):
        for seed in (0, 1):
            found = documents(tokeniser=tokeniser, seed=seed).baselines("test", window=8, limit=50)
            assert list(found) == [1, 2, 3]
    assert len(calls) == 1
    documents().baselines("test", window=8, limit=60)
    documents().baselines("validation", window=8, limit=50)
    documents(validation_share=0.3).baselines("test", window=8, limit=50)  # another training text
    assert len(calls) == 4
    monkeypatch.setattr(ngram, "VERSION", ngram.VERSION + 1)
    documents().baselines("test", window=8, limit=50)
    assert len(calls) == 5


def test_examples_decide_the_digest_where_there_is_no_text():
    def task(**settings: Any) -> MQAR:
        return MQAR(**{"seed": 0, "batch": 2, "vocabulary": 64, "length": 16, "pairs": 2, "held_out": 80} | settings)

    def digest(task: MQAR, limit: int | None = None, window: int = 8) -> str:
        return task.scored("test", window=window, stride=8, limit=limit)

    expected = digest(task())
    assert digest(task(seed=1, batch=4, examples=100), window=99) == expected
    assert digest(task(), 80) == expected
    assert len({expected, digest(task(), 79), digest(task(vocabulary=66)), digest(task(pairs=3))}) == 4
    assert task().scored_bytes("test", window=8, stride=8, limit=None) is None


def test_examples_in_text_count_their_bytes():
    task = PlantedRecall(seed=0, batch=2, length=64, plants=1, held_out=5, multiples=(1, 2))
    assert task.scored_bytes("test", window=1, stride=1, limit=None) == 5 * (64 + 128)
    assert task.scored_bytes("test", window=1, stride=1, limit=4) == 2 * (64 + 128)
