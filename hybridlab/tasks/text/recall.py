"""The tokens of real text that can be recalled: those that complete an n-gram shown earlier in
their document."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, Integer, UInt64

from hybridlab import validate
from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.counter_rng import keys_of, mix64
from hybridlab.tasks.occurrences import previous_occurrence
from hybridlab.tasks.text.split import Split


class Rule(NamedTuple):
    """When a token is a recall hit (Zoology, arXiv:2312.04927, section 3.1: with n = 2 tokens of a
    BPE).

    A hit completes an n-gram that its document has shown before and that training documents hold at
    most `at_most` times: a frequent n-gram is known without looking back. Zoology takes bigrams
    seen below 1250 times in training on the Pile. Eight bytes are about two such tokens; `at_most`
    = 4 is our choice for a corpus of ten megabytes.
    """

    n: int = 8
    at_most: int = 4

    @classmethod
    def of(cls, settings: Mapping[str, int]) -> "Rule":
        """Read {n, at_most}; either may be missing."""
        for key in settings:
            if key not in cls._fields:
                raise ConfigError(f"recall={dict(settings)}: no key `{key}`; {near_miss(key, cls._fields)}")
        rule = cls(**settings)
        for name, least in (("n", 2), ("at_most", 0)):
            named: dict[str, Any] = {f"recall.{name}": getattr(rule, name)}
            validate.whole(least=least, **named)
        return rule


class Recalled(Mapping[str, Split]):
    """The splits of a corpus with the facts `recall` and `recall_distance`, which are -1 throughout
    the training split.

    The hits of a split are found when it is first accessed, the frequent n-grams when a held-out
    split is. `mark` finds those of other held-out documents.
    """

    def __init__(self, splits: Mapping[str, Split], rule: Rule) -> None:
        self._splits = splits
        self._rule = rule
        self._with_facts: dict[str, Split] = {}

    def __getitem__(self, name: str) -> Split:
        if name not in self._with_facts:
            split = self._splits[name]
            if name == "training":
                nothing = np.broadcast_to(np.int64(-1), split.tokens.shape)
                self._with_facts[name] = split._replace(facts={"recall": nothing, "recall_distance": nothing})
            else:
                self._with_facts[name] = self.mark(split)
        return self._with_facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)

    @cached_property
    def _frequent(self) -> UInt64[np.ndarray, " k"]:
        return frequent_ngrams(_documents(self._splits["training"]), self._rule)

    def mark(self, split: Split) -> Split:
        """Return held-out documents with the facts."""
        recall, distance = (np.full(split.tokens.shape, -1) for _ in range(2))
        for first, document in zip(split.offsets + 1, _documents(split), strict=False):
            here = slice(first, first + len(document))
            recall[here], distance[here] = recall_facts(document, self._rule, self._frequent)
        return split._replace(facts={"recall": recall, "recall_distance": distance})


class RecallFacts(NamedTuple):
    """For each token whether it is a recall hit, 1 or 0, and how many tokens ago its n-gram last
    ended, else -1."""

    recall: Int64[np.ndarray, " t"]
    distance: Int64[np.ndarray, " t"]


def recall_facts(document: Integer[np.ndarray, " t"], rule: Rule, frequent: UInt64[np.ndarray, " k"]) -> RecallFacts:
    """Find the recall hits of a document, given the `frequent_ngrams` of the training documents."""
    grams = _ngrams(document, rule.n)
    seen = previous_occurrence(grams)
    rare = np.searchsorted(frequent, grams, side="left") == np.searchsorted(frequent, grams, side="right")
    hit = (seen >= 0) & rare
    # The first n - 1 tokens complete no n-gram.
    before = np.full(min(rule.n - 1, len(document)), -1)
    distance = np.concatenate([before, np.where(hit, np.arange(len(grams)) - seen, -1)])
    return RecallFacts((distance >= 0).astype(np.int64), distance)


def frequent_ngrams(documents: Iterable[np.ndarray], rule: Rule) -> UInt64[np.ndarray, " k"]:
    """Return the n-grams that occur more than `at_most` times in the documents, as sorted hashes of
    64 bits.

    The chance that any two of ten million n-grams share a hash is 3 in a million.
    """
    found = [_ngrams(document, rule.n) for document in documents]
    grams, counts = np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *found]), return_counts=True)
    return grams[counts > rule.at_most]


def _documents(split: Split) -> Iterable[np.ndarray]:
    for start, length in zip(split.offsets, split.lengths, strict=False):
        yield split.tokens[start + 1 : start + 1 + length]


def _ngrams(document: np.ndarray, n: int) -> UInt64[np.ndarray, " grams"]:
    """Return a hash of each n-gram, by the position where it starts."""
    tokens = document.astype(np.uint64) + np.uint64(1)
    total = np.zeros(max(len(tokens) - n + 1, 0), dtype=np.uint64)
    for index, multiplier in enumerate(keys_of(np.arange(n, dtype=np.uint64)) | np.uint64(1)):
        total += tokens[index : index + len(total)] * multiplier
    return mix64(total)
