"""Every sweep of sweeps/ composes, and each of its runs can be built."""

from itertools import product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from hybridlab.config import conf_dir, register
from hybridlab.training.spec import prepare

SWEEPS = sorted((Path(__file__).parents[1] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_stack_of_a_sweep_is_distinct_and_can_be_built(file):
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        sweep = compose("config", overrides=[f"+sweeps={file.stem}"], return_hydra_config=True)
        assert sweep.hydra.mode.name == "MULTIRUN"
        assert sweep.name == file.stem
        grid = [
            [f"{key}={value.strip()}" for value in str(values).split(",")]
            for key, values in sweep.hydra.sweeper.params.items()
            if key not in ("seed", "optimizer.lr")  # these change no stack
        ]
        ids = set()
        for overrides in product(*grid):
            config = compose("config", overrides=[f"+sweeps={file.stem}", *overrides], return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            ids.add(prepare(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])).run_id)
    assert len(ids) == len(list(product(*grid)))


def test_only_the_configuration_is_on_the_search_path():
    """Else a folder of results is taken for a group, and `runs=elsewhere` is refused."""
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        groups = GlobalHydra.instance().config_loader().list_groups("")
        assert "sweeps" in groups
        assert not {"docs", "tests", "hybridlab", "runs"} & set(groups)
