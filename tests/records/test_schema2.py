"""Records of schema 2 keep all their numbers."""

import json

from hybridlab.records.record import SCHEMA, RunRecord

WRITTEN = {
    "schema": 2,
    "run_id": "0123456789ab",
    "name": "demo",
    "status": "finished",
    "reason": "",
    "failures": 0,
    "seed": 0,
    "config": {"seed": 0},
    "choices": {"stack.groups.early.mixer": "full"},
    "plan": [],
    "versions": {},
    "commit": None,
    "hardware": {},
    "created": "2025-01-01T00:00:00+00:00",
    "seconds": 1.5,
    "evaluation": {"split": "test", "window": 32, "measures": ["nll"], "tokens": 128, "documents": 4},
    "headline": "nll",
    "measures": {
        "nll": {
            "unit": "nats/token",
            "definition": "d",
            "source": "",
            "better": "lower",
            "title": "NLL",
            "compared": "",
        },
        "flops": {"unit": "1", "definition": "d", "source": "", "better": "", "title": "", "compared": ""},
    },
    "slices": {},
    "measurements": [
        {"measure": "nll", "value": 3.0, "unit": "nats/token", "split": "validation", "step": 10},
        {"measure": "nll", "value": 2.5, "unit": "nats/token", "split": "test"},
        {"measure": "flops", "value": 7.0, "unit": "1"},
    ],
}


def test_what_was_evaluated_belongs_to_the_one_evaluation():
    record = RunRecord.from_json(json.dumps(WRITTEN))
    assert record.schema == SCHEMA
    curve, tested, flops = record.measurements
    assert (curve.evaluation, flops.evaluation) == ("", "")
    assert record.evaluations[tested.evaluation] == record.evaluation
    assert record.evaluation == {**WRITTEN["evaluation"], "measures": {"nll": {}}}
    assert [found.value for found in record.measurements] == [3.0, 2.5, 7.0]


def test_a_run_that_measured_nothing_has_no_evaluation():
    record = RunRecord.from_json(json.dumps({**WRITTEN, "evaluation": {}, "measurements": []}))
    assert record.evaluations == {}
    assert record.evaluation == {}
