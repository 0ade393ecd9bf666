import json
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from hybridlab.build import build
from hybridlab.errors import ConfigError
from hybridlab.tasks.batch import IGNORED
from hybridlab.tasks.text.documents import Documents
from hybridlab.tasks.text.ngram import BEGIN, baselines
from hybridlab.tasks.text.training_sequences import TrainingSequences


def contents(task: Documents) -> dict[str, set[bytes]]:
    return {
        name: {
            bytes(split.tokens[start + 1 : end].tolist())
            for start, end in zip(split.offsets, split.offsets[1:], strict=False)
        }
        for name, split in task.splits.items()
    }


def write_texts(folder: Path, texts: list[bytes]) -> str:
    for index, text in enumerate(texts):
        (folder / f"{index}.txt").write_bytes(text)
    return str(folder)


def test_a_folder_is_read_whole_and_byte_by_byte(task: Documents, texts: list[bytes]):
    found = contents(task)
    assert set.union(*found.values()) == set(texts)
    assert [len(found[name]) for name in ("training", "validation", "test")] == [11, 1, 1]


def test_the_split_follows_the_digest_of_the_texts(documents: Callable[..., Documents], texts: list[bytes]):
    found = contents(documents(test_share=0.3, validation_share=0.2))
    ordered = sorted(texts, key=lambda text: sha256(text).hexdigest())
    assert found["test"] == set(ordered[:4])
    assert found["validation"] == set(ordered[4:7])
    assert found["training"] == set(ordered[7:])


@pytest.mark.parametrize(("validation_share", "test_share"), [(0.05, 0.9), (0.9, 0.05), (0.1, 0.1)])
def test_three_documents_are_one_for_each_split(tmp_path: Path, validation_share: float, test_share: float):
    path = write_texts(tmp_path, [b"one", b"two", b"three"])
    task = Documents(path=path, seed=0, length=2, batch=1, validation_share=validation_share, test_share=test_share)
    assert [len(texts) for texts in contents(task).values()] == [1, 1, 1]


def test_duplicates_and_empty_documents_are_dropped_and_counted(tmp_path: Path):
    path = write_texts(tmp_path, [b"first", b"second", b"first", b"", b"third", b"first"])
    facts = Documents(path=path, seed=0, length=3, batch=1).describe()
    assert facts["documents"] == {"training": 1, "validation": 1, "test": 1}
    assert facts["duplicates_dropped"] == 2
    assert facts["empty_dropped"] == 1


def test_facts_are_plain_and_tell_corpora_apart(task: Documents, documents: Callable[..., Documents], tmp_path: Path):
    facts = task.describe()
    assert json.loads(json.dumps(facts)) == facts
    assert sum(facts["bytes"].values()) == sum(len(text) for split in contents(task).values() for text in split)
    assert facts["lengths_in_bytes"]["training"]["quantiles"]["max"] == max(map(len, contents(task)["training"]))
    assert facts["sha256"] == documents(seed=9, length=8).describe()["sha256"]
    other = Documents(path=write_texts(tmp_path, [b"one", b"two", b"three"]), seed=0, length=2, batch=1)
    assert facts["sha256"] != other.describe()["sha256"]


def test_sequences_start_anywhere_in_training_documents_equally_often(tmp_path: Path):
    path = write_texts(tmp_path, [b"abcdefgh", b"ij", b"klmnop", b"qrstuvwxyz"])
    task = Documents(path=path, seed=3, length=5, batch=500, validation_share=0.01, test_share=0.01)
    training = task.splits["training"]
    drawn = Counter()
    for step in range(20):
        slices = task.train_batch(step).slices
        drawn.update(zip(slices["document"][:, 0].tolist(), slices["position"][:, 0].tolist(), strict=True))
    legal = {
        (document, start)
        for document, length in enumerate(training.lengths.tolist())
        for start in range(max(length - 5 + 1, 1))
    }
    assert set(drawn) == legal
    expected = 20 * 500 / len(legal)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in drawn.values())


def test_a_short_document_is_padded_and_the_padding_not_supervised(tmp_path: Path):
    texts = [bytes([97 + index]) * (4 + index) for index in range(12)]
    task = Documents(path=write_texts(tmp_path, texts), seed=0, length=10, batch=64)
    batch = task.train_batch(0)
    lengths = task.splits["training"].lengths
    for row in range(64):
        length = int(lengths[batch.slices["document"][row, 0]])
        supervised = batch.targets[row] != IGNORED
        assert supervised.tolist() == [column < length for column in range(10)]
        assert (batch.inputs[row, length:] == BEGIN).all()
    assert (lengths < 10).any()
    assert (lengths > 10).any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed=-1: must be a whole number of at least 0"),
        ({"length": 0}, "length=0: must be a whole number of at least 1"),
        ({"batch": -8}, "batch=-8: must be a whole number of at least 1"),
        ({"batch": True}, "batch=true: must be a whole number of at least 1"),
        ({"length": 801}, "length=801: longer than every training document; the longest has 800 bytes"),
        ({"test_share": 0.0}, "test_share=0.0: must be a number above 0 and below 1"),
        ({"validation_share": 1.0}, "validation_share=1.0: must be a number above 0 and below 1"),
        (
            {"test_share": 0.5, "validation_share": 0.5},
            "test_share=0.5: with validation_share=0.5 leaves nothing to train on",
        ),
    ],
)
def test_bad_settings_are_refused(documents: Callable[..., Documents], wrong: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        documents(**wrong)
    assert str(caught.value) == message


@pytest.mark.parametrize("wrong", [{"length": 2.5}, {"length": "long"}, {"validation_share": "some"}])
def test_settings_of_a_wrong_type_are_refused(folder: Path, wrong: dict):
    settings = {"_target_": "hybridlab.tasks.text.documents.Documents", "path": str(folder), "length": 16, "batch": 4}
    ((key, value),) = wrong.items()
    with pytest.raises(ConfigError, match=rf"^`task\.{key}={value}`: must be "):
        build(settings | wrong, "task", seed=0)


def test_a_sequence_can_be_as_long_as_the_longest_training_document(documents: Callable[..., Documents]):
    assert (documents(length=800, batch=200).train_batch(0).targets != IGNORED).all(dim=1).any()


def test_packed_sequences_are_full_and_number_their_documents(documents: Callable[..., Documents]):
    task = documents(packed=True, length=150, batch=8)
    splits = 0
    for step in range(6):
        batch = task.train_batch(step)
        assert batch.inputs.shape == batch.targets.shape == (8, 150)
        assert batch.documents is not None
        assert (batch.targets != IGNORED).all(), "no padding"
        training = task.splits["training"]
        for row in range(8):
            starts = [0, *(1 + batch.documents[row].diff().nonzero()[:, 0]).tolist(), 150]
            splits += len(starts) - 2
            for start, end in pairwise(starts):
                document = set(batch.slices["document"][row, start:end].tolist())
                assert len(document) == 1
                offset = training.offsets[document.pop()] + batch.slices["position"][row, start:end].numpy()
                assert (training.tokens[offset] == batch.inputs[row, start:end].numpy()).all()
                assert (training.tokens[offset + 1] == batch.targets[row, start:end].numpy()).all()
    assert splits > 8, "rows hold several documents"


def test_packed_sequences_follow_from_seed_and_step(documents: Callable[..., Documents]):
    first, second = (documents(packed=True, length=150).train_batch(3) for _ in range(2))
    assert first.inputs.equal(second.inputs)
    assert not first.inputs.equal(documents(packed=True, length=150).train_batch(4).inputs)


def test_inputs_are_the_targets_one_later(task: Documents):
    for batch in [task.train_batch(0), *task.evaluation_batches("test", window=16, stride=16, limit=None, batch=4)]:
        supervised = (batch.targets != IGNORED)[:, 1:]
        assert torch.equal(batch.inputs[:, 1:][supervised], batch.targets[:, :-1][supervised])


def test_no_document_is_in_two_splits(task: Documents):
    seen = contents(task).values()
    assert len(set.union(*seen)) == sum(map(len, seen))


@pytest.mark.parametrize("distribution", ["uniform", "corpus"])
def test_drawn_lengths_are_those_of_the_distribution(documents: Callable[..., Documents], distribution: str):
    task = documents(length_distribution=distribution, length=64, batch=2000)
    batch = task.train_batch(0)
    assert batch.inputs.shape == (2000, 64)
    assert task.tokens_per_step == batch.inputs.numel(), "padding is read too"
    supervised = batch.targets != IGNORED
    read = supervised.sum(dim=1)
    assert supervised.equal(torch.arange(64) < read[:, None]), "all of a row, then padding"
    assert (batch.inputs[~supervised] == BEGIN).all()
    assert batch.slices["length"].equal(read[:, None].expand(2000, 64))
    own = torch.tensor(task.splits["training"].lengths)
    document, first = batch.slices["document"][:, 0], batch.slices["position"][:, 0]
    assert (first + read <= own[document]).all()
    if distribution == "corpus":
        assert read.equal(own[document].clamp(max=64))
        counts = torch.bincount(document, minlength=len(own))
        assert (counts - 2000 / len(own)).abs().max() < 5 * (2000 / len(own)) ** 0.5
        assert len(first[own[document] > 64].unique()) > 30, "a long document is read at any place"
    else:
        full = read[own[document] >= 64]
        counts = torch.bincount(full, minlength=65)[1:]
        assert (counts - len(full) / 64).abs().max() < 5 * (len(full) / 64) ** 0.5


@pytest.mark.parametrize("distribution", ["uniform", "corpus"])
def test_with_drawn_lengths_a_document_is_one_sequence_from_its_start(
    documents: Callable[..., Documents], distribution: str
):
    task = documents(length_distribution=distribution, test_share=0.5)
    own = task.splits["test"].lengths.tolist()
    layout = {"window": 100, "stride": 50, "limit": None, "batch": 3}
    lengths = {}
    for batch in task.evaluation_batches("test", **layout):
        for row in range(len(batch.inputs)):
            read = int((batch.targets[row] != IGNORED).sum())
            lengths[int(batch.slices["document"][row, 0])] = read
            assert batch.inputs[row, 0] == BEGIN
            assert (batch.targets[row, :read] != IGNORED).all()
            assert (batch.slices["length"][row] == read).all()
    assert sorted(lengths) == list(range(len(own)))
    if distribution == "corpus":
        assert lengths == {index: min(length, 100) for index, length in enumerate(own)}
    else:
        assert all(1 <= lengths[index] <= min(length, 100) for index, length in enumerate(own))
        assert len(set(lengths.values())) > 3
    shorter = [batch.slices["length"].max() for batch in task.evaluation_batches("test", **layout | {"limit": 7})]
    assert max(shorter) <= 7


def test_the_length_of_a_document_that_is_read_by_windows_is_what_is_read_of_it(task: Documents):
    prefixes = torch.tensor(task.splits["test"].prefixes(70).lengths)
    for batch in task.evaluation_batches("test", window=16, stride=8, limit=70, batch=4):
        assert batch.slices["length"].equal(prefixes[batch.slices["document"]])


def test_relative_position_is_in_training_lengths(documents: Callable[..., Documents]):
    task = documents(length=10)
    expected = [0] * 10 + [1] * 10 + [2] * 20 + [3] * 40
    for split in ("training", "validation", "test"):
        for batch in task.evaluation_batches(split, window=1000, stride=1000, limit=None, batch=4):
            for position, place in zip(
                *(batch.slices[name].flatten() for name in ("position", "relative_position")), strict=True
            ):
                assert place == (expected[position] if position < 80 else 4)


@pytest.mark.parametrize("packed", [False, True])
def test_facts_about_tokens_go_with_the_targets(task: Documents, packed: bool):
    training = task.splits["training"]
    known = training._replace(facts={"recall": np.arange(len(training.tokens))})
    rows = TrainingSequences(known, length=32, batch=4, distribution="fixed", packed=packed)
    batch = rows.draw(np.random.default_rng(0))
    scored = batch.targets != IGNORED
    assert (training.tokens[batch.slices["recall"][scored].numpy()] == batch.targets[scored].numpy()).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length_distribution": "corpse"}, "length_distribution=corpse: did you mean `corpus`?"),
        (
            {"length_distribution": "uniform", "packed": True},
            "packed=True: packed sequences are full; length_distribution must be fixed",
        ),
        ({"near_duplicates": "drip"}, "near_duplicates=drip: did you mean `drop`?"),
        ({"hub": {"name": "some/set"}}, "path={path}: with hub.name=some/set there are two sources; one is needed"),
        ({"tokeniser": {"bpe": 3}}, "tokeniser.bpe=3: must be {{bpe: n}} with a whole number n above 256"),
    ],
)
def test_bad_choices_are_refused(documents: Callable[..., Documents], folder: Path, wrong: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        documents(**wrong)
    assert str(caught.value) == message.format(path=folder)


def test_a_tokenised_task_scores_the_same_bytes(documents: Callable[..., Documents]):
    task, by_byte = documents(tokeniser={"bpe": 270}), documents()
    assert (task.unit, task.vocabulary) == ("token", 271)
    for split in ("training", "validation", "test"):
        num_bytes = 0
        for batch in task.evaluation_batches(split, window=16, stride=8, limit=None, batch=4):
            scored = batch.targets[batch.targets != IGNORED]
            num_bytes += task.bytes_of_token[scored.numpy()].sum()
        assert num_bytes == by_byte.describe()["bytes"][split]
    for limit in (None, 5):
        assert task.baselines("test", window=8, limit=limit) == by_byte.baselines("test", window=8, limit=limit)


@pytest.mark.parametrize("distribution", ["uniform", "corpus"])
def test_n_gram_models_score_the_bytes_that_are_read(documents: Callable[..., Documents], distribution: str):
    task = documents(length_distribution=distribution, test_share=0.5)
    read = np.zeros(len(task.splits["test"].lengths), dtype=int)
    for batch in task.evaluation_batches("test", window=50, stride=50, limit=None, batch=3):
        read[batch.slices["document"][:, 0]] = (batch.targets != IGNORED).sum(dim=1)
    training, test = task.splits["training"], task.splits["test"]
    expected = baselines(training.texts(None), test.texts(read))
    assert task.baselines("test", window=50, limit=None) == expected
