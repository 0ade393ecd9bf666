from hybridlab.records import store
from hybridlab.records.claim import claimed
from hybridlab.records.found import read_found
from tests.records.examples import small_record


def test_a_running_record_without_an_owner_is_stopped(tmp_path):
    for run_id, status in (("a", "running"), ("b", "running"), ("c", "finished")):
        store.write(small_record(run_id=run_id, status=status), tmp_path / run_id)
    with claimed(tmp_path / "a"):
        found = {record.run_id: record.status for record in read_found(tmp_path)}
    assert found == {"a": "running", "b": "stopped", "c": "finished"}
