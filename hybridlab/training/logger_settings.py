"""What the node `logger` of a configuration declares; read without importing any logger."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from hybridlab.errors import ConfigError

# Loggers that need a package beyond ours: any one of these, and the extra that installs the first.
_EXTRAS = {
    "TensorBoardLogger": (("tensorboard", "tensorboardX"), "tensorboard"),
    "MLFlowLogger": (("mlflow",), "mlflow"),
}


def declared_loggers(node: Any) -> dict[str, Mapping[str, Any]]:
    """Return the `_target_` and settings of each logger by its name; null stands for none."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"`logger={node}`: must be a mapping from names to `_target_` and settings")
    for name, settings in node.items():
        if name == "_target_":
            raise ConfigError(
                f"`logger._target_={settings}`: must be below the name of a logger, e.g. `mine: {{_target_: ...}}`"
            )
        if settings is not None and not isinstance(settings, Mapping):
            raise ConfigError(
                f"`logger.{name}={settings}`: must be below the name of a logger, e.g. `logger.wandb.{name}={settings}`"
            )
        if settings is not None and "_target_" not in settings:
            raise ConfigError(f"`logger.{name}`: no such logger is chosen; write `logger={name}` too")
    return {str(name): settings for name, settings in node.items() if settings is not None}


def check_declared(node: Any) -> None:
    """Require that the packages of the loggers are installed."""
    for name, settings in declared_loggers(node).items():
        packages, extra = _EXTRAS.get(str(settings["_target_"]).rpartition(".")[2], ((), ""))
        if packages and not any(map(find_spec, packages)):
            raise ConfigError(f"`logger.{name}`: {packages[0]} is not installed; pip install 'hybridlab[{extra}]'")
