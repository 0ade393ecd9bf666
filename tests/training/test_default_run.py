"""A short default run on the built-in corpus beats a byte bigram model."""

import pytest

from tests.records.reading import read_all


@pytest.mark.slow
def test_the_default_stack_beats_the_shortest_n_gram_model(hybridlab, tmp_path):
    budget = ["trainer.max_steps=60", "evaluation.limit=512", "trainer.enable_progress_bar=false"]
    assert hybridlab("train", *budget).code == 0
    (record,) = read_all(tmp_path)
    values = {row.name: row for row in record.measurements if row.step is None}
    bits = values["test/bits_per_byte"]
    assert bits.high < values["test/ngram_bits_per_byte/context/1"].value - 0.3
    assert bits.low < bits.value < bits.high
    assert record.evaluation["documents"] == 23
    assert values["test/knockout/group/early/mixer"].low > 0
