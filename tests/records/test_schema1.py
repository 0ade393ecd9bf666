"""Records of schema 1, among them the reference records of the sweeps, keep all their numbers."""

import json
import lzma
from pathlib import Path

import pytest

from hybridlab.records.archive import SUFFIX
from hybridlab.records.record import SCHEMA, RunRecord
from hybridlab.renamed import SETTINGS, TARGETS
from hybridlab.report import build

ARCHIVES = sorted((Path(__file__).parents[2] / "sweeps").glob(f"*{SUFFIX}"))


def lines_of(archive):
    return lzma.decompress(archive.read_bytes()).decode().splitlines()


def without_evaluation(measurements):
    """Return the measurements of a record without the key of their evaluation, which is new."""
    return [{key: value for key, value in each.items() if key != "evaluation"} for each in measurements]


@pytest.mark.parametrize(
    "archive",
    [pytest.param(path, marks=pytest.mark.slow) if "_h100" in path.name else path for path in ARCHIVES],
    ids=lambda path: path.name.removesuffix(SUFFIX),
)
def test_reference_records_keep_their_numbers_and_have_the_present_names(archive):
    for line in lines_of(archive):
        written, read = json.loads(line), RunRecord.from_json(line)
        assert without_evaluation(json.loads(read.to_json())["measurements"]) == written["measurements"]
        assert read.schema == SCHEMA
        assert list(read.measures) == list(dict.fromkeys(each.measure for each in read.measurements))
        if read.status == "finished":
            assert read.headline == ("accuracy" if "mqar" in archive.name else "bits_per_byte")
        assert len(read.choices) + len(read.derived) == len(written["choices"])
        assert not set(TARGETS) & {str(value) for value in read.choices.values()}
        targets = {
            key.removesuffix("._target_"): value for key, value in read.choices.items() if key.endswith("._target_")
        }
        for key in read.choices:
            node, _, setting = key.rpartition(".")
            assert setting not in SETTINGS.get(str(targets.get(node)), {})


def test_a_record_of_schema_1_becomes_one_of_the_present_schema():
    written = {
        "schema": 1,
        "run_id": "0123456789ab",
        "name": "demo",
        "status": "finished",
        "seed": 3,
        "config": {"evaluation": {"probes": ["knockout"], "by": ["group"], "probe_budget": 2.0}},
        "choices": {
            "stack.groups.early.mixer": "sliding",
            "stack.groups.early.settings.sliding._target_": "hybridlab.mixers.sliding.Sliding",
            "evaluation.probe_budget": 2.0,
        },
        "plan": [{"layer": 0, "settings": {"_target_": "hybridlab.mixers.sliding.Sliding", "window": 8}}],
        "versions": {},
        "commit": None,
        "hardware": {},
        "created": "2025-01-01T00:00:00+00:00",
        "seconds": 1.5,
        "reason": "",
        "evaluation": {"split": "test"},
        "measurements": [
            {"measure": "nll", "value": 1.25, "unit": "nats/token", "split": "test"},
            {"measure": "bits_per_byte", "value": "NaN", "unit": "bits/byte", "split": "test"},
            *(
                {"measure": "nll", "value": 2.5, "unit": "nats/token", "slice": name, "bucket": bucket}
                for name, bucket in [
                    ("recall", "recall"),
                    ("recall", "other tokens"),
                    ("distance", "1024-2047"),
                    ("distance", "4-7"),
                ]
            ),
        ],
    }
    record = RunRecord.from_json(json.dumps(written))
    assert record.headline == "bits_per_byte"
    assert record.measures["bits_per_byte"].compared == "nll"
    assert record.measures["nll"].better == "lower"
    assert record.slices["recall"].buckets == ("other tokens", "recall")
    assert record.slices["recall"].prominent
    assert record.slices["distance"].buckets == ("4-7", "1024-2047")
    sliding = "hybridlab.mixers.sparse.sliding.Sliding"
    assert record.choices == {
        "stack.groups.early.mixer": "sliding",
        "stack.groups.early.settings.sliding._target_": sliding,
        "evaluation.intervention_budget": 2.0,
    }
    assert record.plan[0]["settings"] == {"_target_": sliding, "window": 8}
    evaluation = record.config["evaluation"]
    assert evaluation == {"measures": ["knockout"], "groupings": ["group"], "intervention_budget": 2.0}
    assert record.failures == 0
    assert without_evaluation(json.loads(record.to_json())["measurements"]) == written["measurements"]


def test_the_report_on_reference_records_shows_their_numbers():
    (archive,) = (path for path in ARCHIVES if path.name == f"recall_slices{SUFFIX}")
    found = build.report(archive)
    stacks, recall = (
        next(section for section in found.sections if section.title == title).tables[0]
        for title in ("Stacks", "Recall")
    )
    assert found.subtitle == "9 stacks, 81 runs"
    assert "lowest bits per byte first" in stacks.caption
    assert stacks.numbers[:2] == ("Bits per\nbyte", "NLL\n(nats/token)")
    best, *_ = stacks.bodies[0]
    assert best[:5] == ("mamba2", "3 finished", "0.008", "2.040\n[2.028, 2.052]", "1.4143\n[1.4060, 1.4227]")
    base = next(line for line in recall.bodies[0] if line[0] == "full")
    assert base[1:] == ("6.42\n[6.08, 6.77]", "12.8\n[11.6, 14.1]", "6.41\n[6.07, 6.75]", "–")
