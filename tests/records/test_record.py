import json
import math

import pytest
from hypothesis import given, settings

from hybridlab.errors import ConfigError
from hybridlab.records.measurement import Measurement
from hybridlab.records.record import SCHEMA, RunRecord
from tests.records.examples import FIELDS, described, small_record


@settings(deadline=None, max_examples=50)
@given(FIELDS)
def test_a_record_comes_back_exactly(fields):
    record = RunRecord(**fields)
    text = record.to_json()
    again = RunRecord.from_json(text)
    assert repr(again) == repr(record)  # unlike ==, equal for NaN, and sees the order of keys, -0.0 and the types
    assert again.to_json() == text


@settings(deadline=None, max_examples=50)
@given(FIELDS)
def test_any_json_reader_can_read_a_record(fields):
    assert json.loads(RunRecord(**fields).to_json(), parse_constant=pytest.fail)["schema"] == SCHEMA


def test_numbers_that_json_lacks_are_words():
    found = Measurement(measure="perplexity", value=math.inf, unit="1", low=math.nan, high=-math.inf)
    written = json.loads(small_record(measurements=[found]).to_json())["measurements"]
    assert written == [{"measure": "perplexity", "value": "Infinity", "unit": "1", "low": "NaN", "high": "-Infinity"}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"measure": "nl"},
        {"unit": "bits/byte"},
        {"slice": "depth", "bucket": "0-63"},
        {"slice": "position", "bucket": "64-127"},
    ],
)
def test_a_measurement_that_the_record_does_not_describe_is_asserted(wrong):
    found = {"measure": "nll", "value": 1.0, "unit": "nats/token", "slice": "position", "bucket": "0-63"}
    fields = described([Measurement(**found)])
    small_record(**fields, measurements=[Measurement(**found)])
    with pytest.raises((AssertionError, KeyError)):
        small_record(**fields, measurements=[Measurement(**{**found, **wrong})])


def test_a_reason_is_one_line():
    assert small_record(status="failed", reason="out of\n  memory\n").reason == "out of memory"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": SCHEMA + 1}, f"r.json: schema {SCHEMA + 1}, written by a newer hybridlab; this one reads up to"),
        ({"schema": None}, "r.json: not a run record: no `schema`"),
        ({"seed": "zero"}, "r.json: damaged, `seed` is not of the right type"),
        ({"seed": True}, "r.json: damaged, `seed` is not of the right type"),
        ({"plan": {}}, "r.json: damaged, `plan` is not of the right type"),
        ({"status": "dreaming"}, "r.json: damaged, a value that no record holds (dreaming)"),
        ({"colour": "red"}, "r.json: damaged, unknown `colour`"),
        ({"measurements": [{"measure": "nll"}]}, "r.json: damaged, a value that no record holds"),
        (
            {"measurements": [{"measure": "x", "value": 1, "unit": "1"}]},
            "r.json: damaged, a value that no record holds",
        ),
        ({"measurements": [3]}, "r.json: damaged, a value that no record holds"),
    ],
)
def test_a_damaged_record_is_refused_by_name(change, message):
    content = {**json.loads(small_record().to_json()), **change}
    with pytest.raises(ConfigError) as refused:
        RunRecord.from_json(json.dumps(content), "r.json")
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema": NaN}', small_record().to_json()[:-30]])
def test_what_is_no_record_is_refused(text):
    with pytest.raises(ConfigError, match=r"^r\.json: "):
        RunRecord.from_json(text, "r.json")


@pytest.mark.parametrize("key", ["run_id", "measurements", "evaluations"])
def test_a_missing_key_is_named(key):
    content = json.loads(small_record().to_json())
    del content[key]
    with pytest.raises(ConfigError, match=rf"^r\.json: damaged, missing `{key}`$"):
        RunRecord.from_json(json.dumps(content), "r.json")
