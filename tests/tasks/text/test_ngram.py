from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from math import log2
from pathlib import Path

import numpy as np
import pytest

from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.text.documents import Documents
from hybridlab.tasks.text.ngram import BEGIN, KneserNey

WORDS = [b"the ", b"union ", b"state ", b"of ", b"and ", b"a ", b"thus ", "ÿ".encode()]


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """Return text of words, whose n-grams occur once, twice and often, unlike those of noise."""
    folder = tmp_path_factory.mktemp("wordy")
    generator = np.random.default_rng(1)
    for index in range(12):
        chosen = generator.choice(len(WORDS), size=10 + index)
        (folder / f"{index}.txt").write_bytes(b"".join(WORDS[choice] for choice in chosen))
    return Documents(path=str(folder), seed=0, length=8, batch=2, test_share=0.3)


def documents_of(task: Documents, split: str) -> list[list[int]]:
    chosen = task.splits[split]
    return [chosen.tokens[start:end].tolist() for start, end in zip(chosen.offsets, chosen.offsets[1:], strict=False)]


def slow_kneser_ney(documents: Sequence[Sequence[int]], context: int) -> Callable[[tuple[int, ...]], float]:
    """Return the probability of an n-gram's last symbol by the definition, with dictionaries."""
    occurrences = Counter(
        tuple(padded[end - context - 1 : end])
        for document in documents
        for padded in [[BEGIN] * (context - 1) + list(document)]
        for end in range(context + 1, len(padded) + 1)
    )
    counts = {context + 1: occurrences}
    for size in range(context, 0, -1):
        counts[size] = Counter(gram[1:] for gram in counts[size + 1])

    @cache
    def discount(size: int) -> float:
        often = Counter(counts[size].values())
        return often[1] / (often[1] + 2 * often[2]) if often[1] and often[2] else 0.5

    following = defaultdict(dict)
    for level in counts.values():
        for gram, count in level.items():
            following[gram[:-1]][gram[-1]] = count

    def probability(gram: tuple[int, ...]) -> float:
        shorter = probability(gram[1:]) if len(gram) > 1 else 1 / 256
        seen = following.get(gram[:-1])
        if seen is None:
            return shorter
        left_over = discount(len(gram)) * len(seen) * shorter
        return (max(seen.get(gram[-1], 0) - discount(len(gram)), 0) + left_over) / sum(seen.values())

    return probability


def code(gram: Sequence[int]) -> int:
    return sum(symbol * 257**place for place, symbol in enumerate(reversed(gram)))


def fitted(documents: Sequence[Sequence[int]], context: int) -> KneserNey:
    grams = [
        code(padded[end - 4 : end])
        for document in documents
        for padded in [[BEGIN, BEGIN, *document]]
        for end in range(4, len(padded) + 1)
    ]
    return KneserNey(*np.unique(np.array(grams), return_counts=True), context)


@pytest.mark.parametrize("context", [1, 2, 3])
def test_probabilities_of_all_bytes_sum_to_one(wordy: Documents, context: int):
    model = fitted(documents_of(wordy, "training"), context)
    seen, partly_seen, unseen = tuple(b"the"), tuple(b"\x01he"), (1, 2, 3)
    for before in (seen, partly_seen, unseen, (BEGIN, BEGIN, BEGIN), (BEGIN, BEGIN, ord("t")), (BEGIN, 1, 2)):
        probability = model.probability(np.array([code((*before, byte)) for byte in range(256)]))
        assert (probability > 0).all()
        assert probability.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("limit", [None, 1, 2, 20])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_baselines_are_the_definition_on_the_bytes_that_evaluation_scores(
    wordy: Documents, split: str, limit: int | None
):
    chosen = documents_of(wordy, split)
    scored = [
        (int(document), int(position))
        for batch in wordy.evaluation_batches(split, window=8, stride=3, limit=limit, batch=4)
        for document, position in zip(
            *(batch.slices[name][batch.targets != IGNORED] for name in ("document", "position")), strict=True
        )
    ]
    for context, bits in wordy.baselines(split, window=8, limit=limit).items():
        probability = slow_kneser_ney(documents_of(wordy, "training"), context)
        slow = 0.0
        for document, position in scored:
            padded = [BEGIN] * (context - 1) + chosen[document]
            slow -= log2(probability(tuple(padded[position : position + context + 1])))
        assert bits == pytest.approx(slow / len(scored), rel=1e-12)


def test_more_context_costs_fewer_bits_on_the_embedded_corpus():
    task = Documents(seed=0, length=512, batch=8)
    bits = task.baselines("test", window=8, limit=4096)
    assert list(bits) == [1, 2, 3]
    assert 3.5 > bits[1] > bits[2] > bits[3] > 2.0


def test_one_repeated_byte_has_no_counts_of_counts_and_still_a_price(tmp_path: Path):
    for index in range(3):
        (tmp_path / f"{index}.txt").write_bytes(b"a" * (50 + index))
    bits = Documents(path=str(tmp_path), seed=0, length=8, batch=1, near_duplicates="keep").baselines(
        "test", window=8, limit=None
    )
    assert all(0 < each < 0.5 for each in bits.values())
