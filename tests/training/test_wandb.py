"""The data that Weights & Biases received, read back from the file of the offline run."""

import json
import struct

from tests.records.reading import read_all


def test_the_offline_run_holds_the_records_numbers_under_the_records_names(hybridlab, tiny, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert hybridlab("train", *tiny).code == 0
    (record,) = read_all(tmp_path / "runs")
    (file,) = (tmp_path / "runs" / "default" / "wandb").glob("offline-run-*/run-*.wandb")
    received = Received(file)

    assert received.run.run_id == record.run_id
    assert received.run.run_group == "default"
    assert received.run.project == "hybridlab"
    assert set(received.run.tags) == {"gated_conv", "mamba2", "full"}
    assert received.exit_code == 0

    assert received.config["stack"]["groups"]["deep"]["mixer"] == "full"
    assert received.config["seed"] == 0
    assert received.config["derived"]["layers"] == "gated_conv mamba2 full"

    final = {row.name: row.value for row in record.measurements if row.step is None}
    assert {name: received.summary[name] for name in final} == final
    for name in (
        "test/knockout/group/early/mixer",
        "test/lens/group/deep",
        "test/bits_per_byte",
        "parameters/group/early",
    ):
        assert name in final

    curve = {row.step: row.value for row in record.measurements if row.name == "train/nll"}
    assert {row["trainer/global_step"]: row["train/nll"] for row in received.history if "train/nll" in row} == curve

    assert received.summary["layer_groups"]["_type"] == "table-file"
    table = json.loads((file.parent / "files" / received.summary["layer_groups"]["path"]).read_text())
    by_name = {row[0]: row[1] for row in table["data"]}
    assert by_name["test/knockout/group/deep/mixer"] == final["test/knockout/group/deep/mixer"]
    figures = {name for name in received.summary if name.startswith("figures/")}
    assert len(figures) >= 3
    for name in figures:
        assert (file.parent / "files" / received.summary[name]["path"]).stat().st_size > 1000


def test_a_run_without_a_logger_leaves_no_wandb_folder(hybridlab, tiny, tmp_path):
    assert hybridlab("train", *tiny, "logger=none").code == 0
    assert not list(tmp_path.rglob("wandb"))


class Received:
    """A W&B run, from its `.wandb` file, which is a LevelDB log of protobuf records."""

    def __init__(self, file):
        self.history, self.summary, self.config, self.exit_code = [], {}, {}, None
        for record in records(file.read_bytes()):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "history":
                self.history.append({key(item): json.loads(item.value_json) for item in record.history.item})
            elif kind == "summary":
                for item in record.summary.update:
                    place(self.summary, list(item.nested_key) or [item.key], json.loads(item.value_json))
            elif kind == "exit":
                self.exit_code = record.exit.exit_code
        for row in self.history:
            self.summary |= {name: value for name, value in row.items() if isinstance(value, dict)}


def key(item):
    return item.key or ".".join(item.nested_key)


def place(tree, path, value):
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def records(data, block=32768):
    from wandb.proto import wandb_internal_pb2

    assert data[:4] == b":W&B"
    position, buffer = 7, b""
    while position + 7 <= len(data):
        left = block - position % block
        if left < 7:
            position += left
            continue
        _checksum, size, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0 and size == 0:
            return
        chunk = data[position + 7 : position + 7 + size]
        position += 7 + size
        buffer = chunk if kind in (1, 2) else buffer + chunk
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(buffer)
            yield record
