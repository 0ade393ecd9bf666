from hybridlab.records.measurement import Measurement
from hybridlab.records.table import long_table
from tests.records.examples import small_record


def test_a_row_is_one_measured_number():
    rows = [Measurement(measure="nll", value=value, unit="nats/token", split="test") for value in (1.0, 2.0)]
    records = [
        small_record(measurements=rows),
        small_record(run_id="b", choices={"stack.width": 64}, status="failed", reason="out of memory"),
    ]
    table = long_table(records)
    assert [(row["run_id"], row["value"], row["reason"]) for row in table] == [
        ("0123456789ab", 1.0, ""),
        ("0123456789ab", 2.0, ""),
        ("b", None, "out of memory"),
    ]
    assert len({tuple(row) for row in table}) == 1
    assert [row["stack.width"] for row in table] == [None, None, 64]
    assert [row["stack.groups.early.mixer"] for row in table] == ["full", "full", None]
