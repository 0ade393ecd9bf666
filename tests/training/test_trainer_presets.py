"""A trainer preset changes how a task is trained, never the task."""

import pytest

from hybridlab.config import compose, conf_dir, resolve

PRESETS = [file.stem for file in sorted((conf_dir() / "trainer").glob("*.yaml"))]


@pytest.mark.parametrize("task", ["mqar_zoology", "state_of_the_union"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_leaves_task_optimiser_and_evaluation_alone(preset, task):
    one, other = (resolve(compose([f"task={task}", *more])) for more in ([], [f"trainer={preset}"]))
    for group in ("task", "optimizer", "evaluation"):
        assert one[group] == other[group]
