import dataclasses
from pathlib import Path

import pytest
import yaml

from hybridlab.records.measurement import Measurement
from hybridlab.report.build import of_records
from hybridlab.report.runs.mad_score import TASKS, mad_score
from tests.records.examples import small_record

TASK_FILES = sorted((Path(__file__).parents[3] / "conf" / "task").glob("mad_*.yaml"))


def record(task: dict, accuracy: float, nll: float, *, lr: float = 1e-3, seed: int = 0, **changes):
    rows = [
        Measurement(measure="nll", value=9.0, unit="nats/token", split="validation", step=1),
        Measurement(measure="nll", value=nll, unit="nats/token", split="validation", step=2),
        Measurement(measure="accuracy", value=0.0, unit="1", split="test", slice="length", bucket="64-127"),
        Measurement(measure="accuracy", value=accuracy, unit="1", split="test"),
    ]
    config = {"task": task, "optimizer": {"lr": lr}, "seed": seed}
    return small_record(seed=seed, config=config, measurements=rows, **changes)


@pytest.fixture
def tasks() -> list[dict]:
    return [yaml.safe_load(file.read_text()) for file in TASK_FILES]


def test_the_score_is_the_mean_of_the_six(tasks: list[dict]):
    found = mad_score([record(task, accuracy=index / 10, nll=1.0) for index, task in enumerate(tasks)])
    assert set(found.by_task) == set(TASKS)
    assert sorted(found.by_task.values()) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert found.score == pytest.approx(0.25)


def test_without_all_six_there_is_no_score(tasks: list[dict]):
    found = mad_score([record(task, accuracy=0.5, nll=1.0) for task in tasks[:5]])
    assert len(found.by_task) == 5
    assert found.score is None
    assert mad_score([]).score is None


def test_difficulties_weigh_the_same_and_each_has_its_best_optimiser(tasks: list[dict]):
    task = next(task for task in tasks if "noise_share" in task)
    harder = {**task, "noise_share": 0.8}
    found = mad_score(
        [
            record(task, 0.9, nll=0.2, seed=0),
            record(task, 0.7, nll=0.4, seed=1),
            record(task, 1.0, nll=0.5, lr=1e-2),  # the better test accuracy is not what it is chosen by
            record(harder, 0.2, nll=2.0),
        ]
    )
    assert found.by_task == {"noisy recall": pytest.approx((0.8 + 0.2) / 2)}


def test_other_tasks_and_unfinished_runs_do_not_count(tasks: list[dict]):
    fresh = {**tasks[0], "examples": None}
    text = {"_target_": "hybridlab.tasks.text.documents.Documents"}
    others = [record(fresh, 0.5, 1.0), record(text, 0.5, 1.0), record(tasks[0], 0.5, 1.0, status="diverged")]
    assert mad_score(others).by_task == {}


def test_the_report_shows_the_score_of_a_stack_with_all_six(tasks: list[dict]):
    def choosing(mixer: str, task: dict, number: int):
        choices = {"stack.groups.deep.mixer": mixer, **{f"task.{key}": value for key, value in task.items()}}
        found = record(task, accuracy=number / 10, nll=1.0, run_id=f"{mixer}{number}")
        return dataclasses.replace(found, choices=choices)

    whole = [choosing("full", task, number) for number, task in enumerate(tasks)]
    part = [choosing("linear", task, number) for number, task in enumerate(tasks[:5])]
    (section,) = [section for section in of_records([*whole, *part]).sections if section.title == "MAD score"]
    ((row,),) = section.tables[0].bodies
    assert (row[1], row[-1]) == ("6", "0.250")
    assert sorted(row[2:8]) == ["0.000", "0.100", "0.200", "0.300", "0.400", "0.500"]
    assert "lowest validation NLL" in section.tables[0].note
    assert all(section.title != "MAD score" for section in of_records(part).sections)
