"""A preset for a machine changes how a task is trained, and never the task."""

import pytest
from hydra import compose, initialize_config_dir

from hybridlab.config import conf_dir, register, resolve

PRESETS = [file.stem for file in sorted((conf_dir() / "trainer").glob("*.yaml"))]


@pytest.mark.parametrize("task", ["mqar_zoology", "state_of_the_union"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_leaves_task_optimiser_and_evaluation_alone(preset, task):
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        one, other = (
            resolve(compose("config", overrides=[f"task={task}", *more])) for more in ([], [f"trainer={preset}"])
        )
    for group in ("task", "optimizer", "evaluation"):
        assert one[group] == other[group]
