"""The contract that every task under conf/task keeps."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_folder import write_dataset
from omegaconf import OmegaConf
from published_data import WRITERS

from hybridlab.build import build
from hybridlab.errors import ConfigError
from hybridlab.tasks.base import SPLITS, Task
from hybridlab.tasks.batch import IGNORED, Batch
from hybridlab.tasks.check import check_readout, check_slices
from hybridlab.tasks.slices import DOCUMENT, POSITION
from hybridlab.training.stream import BatchStream

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "task").glob("*.yaml"))
LAYOUT: dict[str, Any] = {"window": 256, "stride": 64, "limit": 160, "batch": 4}


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda file: file.stem)
def make(
    request: pytest.FixtureRequest, folder: Path, texts: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Task]:
    config = OmegaConf.load(request.param)
    if request.param.stem in WRITERS:
        config.path = str(WRITERS[request.param.stem](tmp_path_factory.mktemp("published") / "data"))
    if OmegaConf.is_missing(config, "path"):
        config.path = str(folder)
    if "hub" in config:
        local = write_dataset(
            tmp_path_factory.mktemp("hub"), config.hub, config.field, [text.decode() for text in texts]
        )
        config.hub.update({"name": str(local), "config": None})
    settings: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return lambda seed: build(settings, "task", seed=seed)


@pytest.fixture(scope="module")
def task(make: Callable[[int], Task]) -> Task:
    return make(0)


@pytest.fixture(scope="module")
def evaluated(task: Task) -> dict[str, list[Batch]]:
    return {split: list(task.evaluation_batches(split, **LAYOUT)) for split in SPLITS}


@pytest.fixture(scope="module")
def trained(task: Task) -> list[Batch]:
    return [task.train_batch(step) for step in range(4)]


@pytest.fixture(scope="module")
def batches(trained: list[Batch], evaluated: dict[str, list[Batch]]) -> list[Batch]:
    return [*trained, *(batch for split in SPLITS for batch in evaluated[split])]


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def all_same(some: Iterable[Batch], others: Iterable[Batch]) -> bool:
    return all(same(one, other) for one, other in zip(some, others, strict=True))


def test_there_are_tasks():
    assert {"state_of_the_union", "documents"} <= {file.stem for file in CONFIGS}


def test_a_task_says_what_it_is(task: Task):
    assert isinstance(task, Task)
    assert task.measures
    assert all(isinstance(name, str) for name in task.measures)
    assert {DOCUMENT, POSITION} <= set(task.slices)
    assert task.predicts
    assert task.source
    assert task.unit in ("byte", "token", "symbol")


def test_a_batch_depends_on_seed_and_step_alone(make: Callable[[int], Task], trained: list[Batch]):
    again = make(0)
    assert same(again.train_batch(3), trained[3])
    assert same(again.train_batch(0), trained[0])
    assert not same(trained[0], trained[1])


def test_a_stream_goes_on_where_it_was_left(make: Callable[[int], Task], trained: list[Batch]):
    left = BatchStream(make(0), 4)
    begun = iter(left)
    assert all_same([next(begun), next(begun)], trained[:2])
    taken_up = BatchStream(make(0), 4)
    taken_up.load_state_dict(left.state_dict())
    assert all_same(taken_up, trained[2:])


def test_seeds_differ_in_training_and_agree_in_evaluation(
    make: Callable[[int], Task], trained: list[Batch], evaluated: dict[str, list[Batch]]
):
    other = make(1)
    assert not same(other.train_batch(0), trained[0])
    for split in SPLITS:
        assert all_same(other.evaluation_batches(split, **LAYOUT), evaluated[split])


def test_no_sequence_is_in_two_splits(trained: list[Batch], evaluated: dict[str, list[Batch]]):
    seen = {split: set(sequences(evaluated[split])) for split in SPLITS}
    seen["training"] |= set(sequences(trained))
    assert all(seen.values())
    assert len(set.union(*seen.values())) == sum(map(len, seen.values()))


def sequences(some: Iterable[Batch]) -> Iterable[tuple]:
    """Yield the tokens and the targets of each sequence."""
    for batch in some:
        yield from zip(map(tuple, batch.inputs.tolist()), map(str, batch.targets.tolist()), strict=True)


def test_a_step_has_the_sequences_it_promises(task: Task, trained: list[Batch]):
    assert all(len(batch.inputs) == task.batch for batch in trained)
    assert all(batch.inputs.shape[1] <= task.length for batch in trained)
    assert task.tokens_per_step <= task.batch * task.length


def test_inputs_and_targets_are_in_range(task: Task, batches: list[Batch]):
    for batch in batches:
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.inputs.ndim == 2
        assert batch.targets.shape == (batch.inputs.shape if task.classes is None else batch.inputs.shape[:1])
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < task.vocabulary
        supervised = batch.targets[batch.targets != IGNORED]
        assert len(supervised) > 0
        assert supervised.min() >= 0
        assert supervised.max() < (task.vocabulary if task.classes is None else task.classes)


def test_its_readout_agrees_with_its_classes(task: Task):
    check_readout(task)


def test_validation_batches_are_windows_of_the_training_length(task: Task, monkeypatch: pytest.MonkeyPatch):
    asked: dict[str, Any] = {}

    def record(split: str, **layout: Any) -> Iterator[Batch]:
        asked.update(layout, split=split)
        return iter(())

    monkeypatch.setattr(task, "evaluation_batches", record)
    assert list(task.validation_batches()) == []
    assert asked == {"split": "validation", "window": task.length, "stride": task.length, "limit": 1024, "batch": 8}


def test_slices_are_aligned_with_targets(task: Task, batches: list[Batch]):
    for batch in batches:
        check_slices(task, batch)
        supervised = batch.targets != IGNORED
        for values in batch.slices.values():
            assert values.dtype == torch.int64
            assert values.shape == batch.targets.shape
        for name in ("document", "position"):
            assert batch.slices[name][supervised].min() >= 0


def test_every_target_is_scored_once(task: Task, evaluated: dict[str, list[Batch]]):
    for some in evaluated.values():
        scored = [
            place
            for batch in some
            for place in zip(
                *(batch.slices[name][batch.targets != IGNORED].tolist() for name in ("document", "position")),
                strict=True,
            )
        ]
        assert len(set(scored)) == len(scored)


def test_the_least_limit_leaves_something_to_score(task: Task):
    some = task.evaluation_batches("test", **{**LAYOUT, "limit": 1})
    assert any((batch.targets != IGNORED).any() for batch in some)


def test_a_split_that_is_not_there_is_refused(task: Task):
    with pytest.raises(ConfigError, match="split=tets: did you mean `test`"):
        task.evaluation_batches("tets", **LAYOUT)


def test_it_says_what_it_is_scored_on(task: Task):
    layout: dict[str, Any] = {name: LAYOUT[name] for name in ("window", "stride")}
    digests = {split: task.scored(split, **layout, limit=20) for split in ("validation", "test")}
    assert digests["test"] != digests["validation"]
    assert digests["test"] != task.scored("test", **layout, limit=3)
    num_bytes = task.scored_bytes("test", **layout, limit=20)
    assert (num_bytes is None) == (task.bytes_of_token is None)
    assert num_bytes is None or num_bytes >= 20


def test_what_it_reads_is_its_content(task: Task):
    assert bool(task.content()) == bool(task.content_settings)
    assert set(task.content_settings) <= set(inspect.signature(type(task)).parameters)


def test_a_guess_is_of_what_it_is_judged_by(task: Task):
    assert set(task.floors) <= {*task.measures, "nll"}
    assert all(value > 0 for value in task.floors.values())
    assert task.floors.get("accuracy", 0.5) < 1
    assert task.describe().get("floors", {}) == task.floors
