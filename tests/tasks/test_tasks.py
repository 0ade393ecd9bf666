"""What every task under conf/task keeps, whatever it is about."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from hub_folder import write_dataset
from hydra.utils import instantiate
from omegaconf import OmegaConf

from hybridlab.records.measures import MEASURES
from hybridlab.records.slices import SLICES
from hybridlab.tasks.base import SPLITS, Task
from hybridlab.tasks.batch import IGNORED, Batch

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "task").glob("*.yaml"))


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda file: file.stem)
def make(
    request: pytest.FixtureRequest, folder: Path, texts: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Callable:
    config = OmegaConf.load(request.param)
    if OmegaConf.is_missing(config, "path"):
        config.path = str(folder)
    if "hub" in config:
        local = write_dataset(
            tmp_path_factory.mktemp("hub"), config.hub, config.field, [text.decode() for text in texts]
        )
        config.hub.update({"name": str(local), "config": None})
    return lambda seed: instantiate(config, seed=seed)


@pytest.fixture(scope="module")
def configured(make: Callable):
    return make(0)


def evaluated(task, split: str) -> list[Batch]:
    return list(islice(task.evaluation_batches(split, window=64, stride=32, limit=200, batch=4), 6))


def batches(task) -> list[Batch]:
    return [task.train_batch(0), task.train_batch(1), *(batch for split in SPLITS for batch in evaluated(task, split))]


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def test_there_are_tasks():
    assert {"state_of_the_union", "documents"} <= {file.stem for file in CONFIGS}


def test_a_task_says_what_it_is(configured):
    assert isinstance(configured, Task)
    assert set(configured.measures) <= set(MEASURES)
    assert set(configured.slices) <= set(SLICES)
    assert configured.supervised
    assert configured.source
    assert configured.unit in ("byte", "token", "symbol")


def test_a_batch_depends_on_seed_and_step_alone(make, configured):
    again = make(0)
    late = again.train_batch(5)
    assert same(late, configured.train_batch(5))
    assert same(again.train_batch(0), configured.train_batch(0))
    assert not same(configured.train_batch(0), configured.train_batch(1))


def test_seeds_differ_in_training_and_agree_in_evaluation(make, configured):
    other = make(1)
    assert not same(other.train_batch(0), configured.train_batch(0))
    for split in SPLITS:
        pairs = zip(evaluated(other, split), evaluated(configured, split), strict=True)
        assert all(same(one, two) for one, two in pairs)


def test_a_step_has_the_tokens_it_promises(configured):
    assert configured.train_batch(0).inputs.numel() == configured.tokens_per_step


def test_inputs_and_targets_are_in_range(configured):
    for batch in batches(configured):
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.inputs.shape == batch.targets.shape
        assert batch.inputs.min() >= 0
        assert batch.inputs.max() < configured.vocabulary
        supervised = batch.targets[batch.targets != IGNORED]
        assert len(supervised) > 0
        assert supervised.min() >= 0
        assert supervised.max() < configured.vocabulary


def test_slices_are_aligned_with_targets(configured):
    for batch in batches(configured):
        assert set(batch.slices) == set(configured.slices) >= {"document", "position"}
        for values in batch.slices.values():
            assert values.dtype == torch.int64
            assert values.shape == batch.targets.shape


def test_inputs_are_the_targets_one_later(configured):
    for batch in batches(configured):
        followed = batch.targets[:, :-1]
        supervised = followed != IGNORED
        # The last target of a document is the last input of nothing: the row is padded from there on.
        supervised &= batch.targets[:, 1:] != IGNORED
        assert torch.equal(batch.inputs[:, 1:][supervised], followed[supervised])


def test_no_document_is_in_two_splits(configured):
    seen = [
        {split.tokens[start:end].tobytes() for start, end in zip(split.offsets, split.offsets[1:], strict=False)}
        for split in configured.splits.values()
    ]
    assert all(seen)
    assert len(set.union(*seen)) == sum(map(len, seen))
