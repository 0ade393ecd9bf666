"""MAD's compression, from the command line to the record."""

from hybridlab.records.store import read_all
from tests.conftest import CONF

TINY = ["--config-dir", str(CONF), "stack=tiny", "trainer=tiny", "logger=none"]


def test_compression_trains_and_is_measured_in_full(hybridlab, tmp_path):
    shape = ["task=mad_compression", "task.length=40", "task.batch=16", "trainer.max_steps=4"]
    outcome = hybridlab("train", *TINY, *shape, "evaluation=full", "evaluation.limit=32")
    assert (outcome.code, outcome.err) == (0, "")
    assert "leak gate: whole stack: no leak" in outcome.out
    (record,) = read_all(tmp_path)
    measured = {row.name: row for row in record.measurements if row.step is None}
    assert (measured["test/nll"].n, measured["test/nll"].tokens) == (32, 32 * 40)
    wanted = {"accuracy", "lens", "tuned_lens", "knockout", "mean_knockout", "reach", "interaction"}
    assert wanted | {"memory_tokens", "attention_distance", "block_influence"} <= {
        row.measure for row in measured.values()
    }
