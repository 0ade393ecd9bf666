"""Tasks whose examples are single sequences, from the command line to the record."""

import pytest

from tests.conftest import CONF
from tests.records.reading import read_all

MIX = [
    "task=mqar_based",
    "task.length=32",
    "task.vocabulary=64",
    "task.training=[{length: 16, pairs: 2, examples: 20}, {length: 32, pairs: 4, examples: 20}]",
    "task.evaluation=[{length: 16, pairs: 2, examples: 20}, {length: 48, pairs: 4, examples: 20}]",
]


@pytest.mark.parametrize(
    ("task", "tokens"),
    [(["task=mqar_small"], 20 * 4), (MIX, 10 * 2 + 10 * 4), (["task=mad_memorization", "task.examples=8"], 20 * 16)],
    ids=["one size", "a mix", "a fixed set"],
)
def test_a_run_scores_the_examples_it_is_limited_to(hybridlab, tmp_path, task: list[str], tokens: int):
    outcome = hybridlab(
        "train", "--config-dir", CONF, "stack=tiny", "trainer=tiny", "logger=none", "evaluation.limit=20", *task
    )
    assert outcome.code == 0, outcome.err
    (record,) = read_all(tmp_path / "runs")
    (scored,) = [row for row in record.measurements if row.name == "test/nll"]
    assert (scored.n, scored.tokens) == (20, tokens)
    assert (record.evaluation["window"], record.evaluation["stride"]) == (None, None)
