"""The Long Range Arena's data, read from the formats in which they were published."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from published_data import (
    pictures,
    write_cifar,
    write_cifar_binary,
    write_pairs,
    write_pathfinder,
    write_reviews,
)

from hybridlab.errors import ConfigError
from hybridlab.tasks.lra.image import LRAImage
from hybridlab.tasks.lra.pathfinder import LRAPathfinder
from hybridlab.tasks.lra.retrieval import LRARetrieval
from hybridlab.tasks.lra.text import LRAText


def texts_of(examples) -> list[bytes]:
    return [b"|".join(text.tobytes() for text in example.texts) for example in examples]


def test_reviews_are_read_and_split_by_their_text(tmp_path: Path):
    task = LRAText(seed=0, path=str(write_reviews(tmp_path)), length=20, batch=4, validation_share=0.25)
    facts = {"examples": {"training": 18, "validation": 6, "test": 24}, "duplicates_dropped": 1}
    assert task.describe() == facts | {"floors": {"accuracy": 0.5, "nll": pytest.approx(math.log(2))}}
    for examples in task.splits.values():
        for text, example in zip(texts_of(examples), examples, strict=True):
            assert (b"dull", b"fine")[1 - example.label] not in text
    batch = next(task.evaluation_batches("test", window=8, stride=8, limit=6, batch=6))
    assert batch.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.documents is not None
    for row, documents, length in zip(batch.inputs, batch.documents, batch.slices["length"], strict=True):
        assert documents.tolist() == [0] * length + [-1] * (len(row) - length)
        assert (row[length:] == 256).all()
    assert batch.inputs.shape[1] == batch.slices["length"].max() <= 20


def test_a_pair_is_two_documents_of_a_sequence(tmp_path: Path):
    task = LRARetrieval(seed=0, path=str(write_pairs(tmp_path)), length=60, batch=4)
    assert task.describe()["examples"] == {"training": 30, "validation": 30, "test": 30}
    lines = (tmp_path / "new_aan_pairs.eval.tsv").read_text().splitlines()
    (batch,) = task.evaluation_batches("validation", window=8, stride=8, limit=None, batch=99)
    assert batch.documents is not None
    for line, row, documents, label in zip(lines, batch.inputs, batch.documents, batch.targets, strict=True):
        *_, one, other = line.split("\t")
        assert bytes(row[documents == 0].tolist()).decode() == one[:30]
        assert bytes(row[documents == 1].tolist()).decode() == other[:30]
        assert label == float(line[:3])


@pytest.mark.parametrize("write", [write_cifar, write_cifar_binary])
def test_pictures_are_grey_sequence_after_sequence(tmp_path: Path, write):
    task = LRAImage(seed=0, path=str(write(tmp_path)), batch=4)
    assert {name: len(examples) for name, examples in task.splits.items()} == {
        "training": 36,
        "validation": 4,
        "test": 8,
    }
    colours, labels = pictures(8, 5)
    red, green, blue = colours[3].reshape(3, 32, 32).astype(float)
    expected = np.rint(0.2989 * red + 0.587 * green + 0.114 * blue).flatten()
    batch = next(task.evaluation_batches("test", window=8, stride=8, limit=None, batch=8))
    assert torch.equal(batch.inputs[3], torch.from_numpy(expected).long())
    assert batch.targets.tolist() == labels.tolist()
    assert batch.documents is None


def test_paths_are_listed_in_the_metadata(tmp_path: Path):
    task = LRAPathfinder(seed=0, path=str(write_pathfinder(tmp_path)), batch=4)
    assert {name: len(examples) for name, examples in task.splits.items()} == {
        "training": 47,
        "validation": 6,
        "test": 6,
    }
    names = [name for split in task.splits.values() for name, _ in split.listed]
    assert len(set(names)) == 59
    assert "imgs/0/sample_0.png" not in names
    for name, label in task.splits["training"].listed:
        assert label == int(name.removesuffix(".png").rpartition("_")[2]) % 2
    assert task.train_batch(0).inputs.shape == (4, 1024)


@pytest.mark.parametrize(
    ("task", "holds"),
    [
        (LRAText, "train/neg"),
        (LRARetrieval, "new_aan_pairs.train.tsv"),
        (LRAImage, "data_batch_1"),
        (LRAPathfinder, "imgs"),
    ],
)
def test_what_must_be_where_is_said_in_one_line(tmp_path: Path, task, holds):
    for path, found in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "has no ")):
        with pytest.raises(ConfigError) as refused:
            task(seed=0, path=str(path), batch=2)
        message = str(refused.value)
        assert message.startswith(f"path={path}: {found}")
        assert holds in message
        assert ".gz" in message
        assert "\n" not in message


def test_damaged_data_end_in_one_line(tmp_path: Path):
    pairs = write_pairs(tmp_path / "aan")
    with (pairs / "new_aan_pairs.test.tsv").open("a") as file:
        file.write("2.0\ta\tb\tc\td\n")
    with pytest.raises(ConfigError, match=r"line 31 of new_aan_pairs.test.tsv is not label, id1"):
        LRARetrieval(seed=0, path=str(pairs), batch=2)
    cifar = write_cifar_binary(tmp_path / "bin")
    (cifar / "data_batch_2.bin").write_bytes(b"short")
    with pytest.raises(ConfigError, match="a batch is damaged"):
        LRAImage(seed=0, path=str(cifar), batch=2)
    paths = write_pathfinder(tmp_path / "paths")
    (paths / "imgs" / "1" / "sample_3.png").write_bytes(b"no picture")
    task = LRAPathfinder(seed=0, path=str(paths), batch=200)
    with pytest.raises(ConfigError, match=r"sample_3.png cannot be read as a picture"):
        task.train_batch(0)
    (paths / "metadata" / "2.npy").write_text("imgs/0 sample_1.png\n")
    with pytest.raises(ConfigError, match=r"metadata/2.npy has a line"):
        LRAPathfinder(seed=0, path=str(paths), batch=2)


def test_a_pickle_that_runs_something_is_refused(tmp_path: Path):
    class Planted:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    folder = write_cifar(tmp_path / "py")
    (folder / "data_batch_3").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(ConfigError, match=r"a batch is damaged: .* is not part of an array"):
        LRAImage(seed=0, path=str(folder), batch=2)
    assert not (tmp_path / "touched").exists()
