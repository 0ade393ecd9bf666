"""What a record says of the text that was scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers

from hybridlab.evaluation.passes.sampling import regrouped
from hybridlab.evaluation.passes.sums import Breakdown, TargetSums
from hybridlab.tasks.synthetic.mqar import MQAR
from hybridlab.tasks.text.documents import Documents
from tests.evaluation.examples import evaluation_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return documents of few words, and beside them a tokeniser that adds a space in front."""
    top = tmp_path_factory.mktemp("documents")
    words = np.random.default_rng(0).choice(["alpha", "naïve", "union"], size=(12, 40))
    for number, chosen in enumerate(words):
        (top / f"{number}.txt").write_text(" ".join(chosen), encoding="utf-8")
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "a": 257, "▁a": 258}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a")], byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(top / "tokenizer.json"))
    return top


@pytest.fixture(scope="module")
def tasks(folder: Path) -> list[Documents]:
    settings: dict[str, Any] = {"path": str(folder), "seed": 0, "length": 16, "batch": 2, "test_share": 0.3}
    return [Documents(**settings, tokeniser=each) for each in ("bytes", {"bpe": 280}, str(folder / "tokenizer.json"))]


@pytest.mark.parametrize("limit", [None, 50])
def test_tokenisers_are_scored_on_one_text(tasks: list[Documents], limit: int | None):
    evaluation = evaluation_of(limit=limit)
    (scored,) = {evaluation.summary([], task)["scored"] for task in tasks}
    (num_bytes,) = {evaluation.summary([], task)["bytes"] for task in tasks}
    assert len(scored) == 64
    assert evaluation_of(limit=limit, window=8, stride=4).summary([], tasks[0])["scored"] == scored
    assert evaluation_of(limit=49).summary([], tasks[0])["scored"] != scored
    for task in tasks:
        batches = list(evaluation.batches(task))
        for some in (batches, list(regrouped(batches, 1.0, 2))):
            sums = TargetSums(Breakdown(some, []), task.bytes_of_token)
            for batch in some:
                sums.count(batch)
            assert sums.bytes.by().sum() == num_bytes, "the bytes that bits are divided by"


def test_examples_without_text_have_a_digest_and_no_bytes():
    task = MQAR(seed=0, batch=2, vocabulary=32, length=16, pairs=2, held_out=20)
    summary = evaluation_of(limit=10).summary([], task)
    assert summary["bytes"] is None
    assert summary["scored"] != evaluation_of(limit=11).summary([], task)["scored"]
