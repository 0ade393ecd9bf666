import pytest

from hybridlab.records import found, store
from hybridlab.records.archive import pack
from hybridlab.records.claim import claimed
from hybridlab.records.found import STOPPED, WAITING, read_found, state
from hybridlab.records.record import STATUSES
from hybridlab.records.sweep import plan_runs
from hybridlab.status import STATES, find_runs
from tests.records.examples import small_record

OWNED = dict.fromkeys(STATUSES, "running") | {"finished": "finished", "truncated": "truncated"}
LEFT = {status: status for status in STATUSES} | {"running": "stopped"}


@pytest.mark.parametrize("status", STATUSES)
def test_a_run_is_in_the_state_that_its_owner_tells(tmp_path, status):
    record = small_record(status=status)
    store.write(record, tmp_path)
    with claimed(tmp_path):
        assert state(tmp_path, record) == read_found(tmp_path)[0].status == OWNED[status]
    assert state(tmp_path, record) == read_found(tmp_path)[0].status == LEFT[status]


def test_a_run_without_a_record_waits_until_it_has_an_owner(tmp_path):
    assert state(tmp_path / "run", None) == WAITING
    with claimed(tmp_path / "run"):
        assert state(tmp_path / "run", None) == "running"


def test_the_status_of_a_folder_and_its_tables_agree(tmp_path):
    for status in STATUSES:
        store.write(small_record(run_id=status, status=status), tmp_path / status)
    plan_runs(tmp_path, {"planned": "seed=1"})
    in_tables = {record.run_id: record.status for record in read_found(tmp_path)}
    in_status = {run.run_id: run.state for run in find_runs(tmp_path)}
    assert in_status == in_tables | {"planned": WAITING}
    assert set(in_status.values()) | {"running"} == set(STATES)


def test_why_a_run_stopped_is_said_unless_its_record_does(tmp_path):
    for run_id, reason in (("a", ""), ("b", "RuntimeError: out of luck")):
        store.write(small_record(run_id=run_id, status="running", reason=reason), tmp_path / run_id)
    assert [record.reason for record in read_found(tmp_path)] == [STOPPED, "RuntimeError: out of luck"]


def test_in_a_read_only_folder_what_the_record_says_stands(tmp_path, monkeypatch):
    def read_only(_):
        raise PermissionError

    monkeypatch.setattr(found, "has_living_owner", read_only)
    store.write(small_record(status="running"), tmp_path)
    assert [record.status for record in read_found(tmp_path)] == ["running"]


def test_an_archive_is_read_as_it_was_packed(tmp_path):
    record = small_record(status="running")
    assert read_found(pack([record], tmp_path / "demo.records.jsonl.xz")) == [record]
