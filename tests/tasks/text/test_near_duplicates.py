"""MinHash against the definition: sets of shingles of plain Python."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridlab.tasks.text import near_duplicates as module
from hybridlab.tasks.text.near_duplicates import BANDS, THRESHOLD, band_keys, jaccard, near_duplicates


def slow_shingles(text: bytes) -> set[bytes]:
    kept = bytes(byte for byte in text.lower() if byte > 32)
    return {kept[start : start + 24] for start in range(max(len(kept) - 23, 1))}


def slow_jaccard(one: bytes, other: bytes) -> float:
    first, second = slow_shingles(one), slow_shingles(other)
    return len(first & second) / len(first | second)


def words(seed: int, num: int) -> list[bytes]:
    return [b"word%d" % number for number in np.random.default_rng(seed).integers(5000, size=num)]


def edited(text: list[bytes], every: int) -> list[bytes]:
    return [b"edited" if place % every == every - 1 else word for place, word in enumerate(text)]


def found(documents: Sequence[bytes], others: Sequence[bytes]) -> list[int]:
    texts = [*documents, *others]
    places = np.arange(len(texts))
    keys = np.array([band_keys(text) for text in texts])
    return near_duplicates(texts.__getitem__, keys, *np.split(places, [len(documents)])).tolist()


@given(
    st.lists(st.sampled_from([b"abcdefgh", b"A ", b"\n", b"xyz", "é".encode()]), max_size=30).map(b"".join),
    st.binary(max_size=60),
)
@settings(max_examples=60)
def test_the_similarity_is_that_of_the_sets_of_shingles(one: bytes, other: bytes):
    for pair in ((one, other), (one, one + other), (other, other)):
        assert jaccard(*map(module._shingles, pair)) == slow_jaccard(*pair)


def test_a_long_document_is_hashed_in_chunks(monkeypatch: pytest.MonkeyPatch):
    text = b" ".join(words(0, 300))
    whole, keys = module._shingles(text), band_keys(text)
    monkeypatch.setattr(module, "_CHUNK", 50)
    assert np.array_equal(module._shingles(text), whole)
    assert np.array_equal(band_keys(text), keys)


@pytest.mark.parametrize(("every", "near"), [(10_000, True), (100, True), (40, True), (5, False)])
def test_pairs_above_the_threshold_are_found_and_no_others(every: int, near: bool):
    texts = [words(seed, 400) for seed in range(30)]
    documents = [b" ".join(text) for text in texts]
    others = [b" ".join(edited(text, every)) for text in texts]
    assert all((slow_jaccard(*pair) >= THRESHOLD) == near for pair in zip(documents, others, strict=True))
    assert found(documents, others) == (list(range(30)) if near else [])


def test_layout_and_case_do_not_matter_but_words_do():
    text = b" ".join(words(0, 100))
    assert found([text, b" ".join(words(1, 100))], [text.upper().replace(b" ", b"\r\n\t")]) == [0]


def test_short_documents_are_compared_whole():
    assert found([b"one", b"Two ", b"  "], [b"two", b"three"]) == [1]
    assert found([b"ab" * 40], [b"ab" * 30]) == [0]


def test_the_share_of_agreeing_bins_estimates_the_similarity():
    """25 bands of 5 find a pair of similarity s with probability 1 - (1 - s^5)^25."""
    texts = [words(seed, 300) for seed in range(400)]
    pairs = [(b" ".join(text), b" ".join(edited(text, 12))) for text in texts]
    similarity = np.array([jaccard(*map(module._shingles, pair)) for pair in pairs])
    expected = 1 - (1 - similarity**5) ** BANDS
    agree = np.array([(band_keys(one) == band_keys(other)).any() for one, other in pairs])
    assert 0.1 < expected.mean() < 0.9
    assert abs(agree.mean() - expected.mean()) < 4 * np.sqrt((expected * (1 - expected)).sum()) / len(pairs)
