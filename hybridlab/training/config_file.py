"""The configuration of a run as a file in its folder, which composes to the same run again."""

from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError
from hybridlab.records.atomic import write_text
from hybridlab.training.spec import RunSpec

FILE = "config.yaml"


def write_config(spec: RunSpec) -> None:
    """Write the resolved configuration of a run into its folder."""
    from omegaconf import OmegaConf

    write_text(spec.directory / FILE, OmegaConf.to_yaml(OmegaConf.create(spec.declared)))


def read_config(directory: str | Path) -> Any:
    """Read the configuration in a run's folder, as an OmegaConf DictConfig."""
    from omegaconf import OmegaConf

    path = Path(directory) / FILE
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; the run is of an earlier hybridlab")
    return OmegaConf.load(path)
