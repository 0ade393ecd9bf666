"""Where the configuration lies, and how Hydra is told to read it."""

import os
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError, near_miss, replacing

# The groups below the root take any key from the command line without Hydra's `+`: they are checked against the signature
# of what they configure, with the near miss named, where they are built.
GROUPS = ("stack", "mixers", "task", "optimizer", "trainer", "checkpoint", "evaluation", "logger")
SCALARS = ("name", "runs", "seed", "retries", "compile")

# What runs a sweep elsewhere than in this process, or draws its jobs, and the extra of this package that brings it.
EXTRAS = {
    "hydra/launcher=joblib": "parallel",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/launcher=ray": "ray",
    "hydra/sweeper=optuna": "optuna",
}

# What a sweep's file says to its report: Hydra does not see it, so that it changes no run.
REPORTED = ("tuned", "table", "published", "claims")


def conf_dir() -> Path:
    """Return the folder of the configuration: conf/ beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError("conf/config.yaml: not found beside the hybridlab package; install it again")


def sweep_files() -> dict[str, Path]:
    """Return the file of every sweep, by name."""
    return {file.stem: file for file in sorted((conf_dir().parent / "sweeps").glob("*.yaml"))}


def run_app(function: Callable[[Any], Any], arguments: Sequence[str], command: str) -> None:
    """Let Hydra compose the configuration from `arguments` and call `function` with it: once, or per job of a multirun."""
    import sys

    for word in arguments:
        if word.lstrip("+").startswith("hydra.sweeper.params="):  # OmegaConf fails to merge into what is null
            raise ConfigError(f"`{word}`: name each key as an override of its own, e.g. `optimizer.lr=1e-3,2e-3`")
        group, _, choice = word.partition("=")
        if choice == "null" and group in GROUPS and (choices := _files_of(group)):  # which Hydra fails on
            raise ConfigError(f"`{word}`: no such {group}; {near_miss(choice, choices)}")
    import hydra
    from hydra.errors import HydraException

    # Hydra prints its own errors and exits with 1; asked for the full error, it raises, and the command line says it in one line.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    register()
    before, sys.argv = sys.argv, [f"hybridlab {command}", *_flags_first(arguments), f"hydra.job.name={command}"]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(function)()
    except HydraException as error:
        raise ConfigError(_in_one_line(error)) from error
    finally:
        sys.argv = before


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Put Hydra's flags before the overrides: its parser refuses overrides on both sides of a flag."""
    takes_value = (
        "--cfg",
        "-c",
        "--package",
        "-p",
        "--config-dir",
        "-cd",
        "--config-name",
        "-cn",
        "--config-path",
        "-cp",
    )
    flags, overrides = [], []
    for index, word in enumerate(arguments):
        is_flag = word.startswith("-") or (index > 0 and arguments[index - 1] in takes_value)
        (flags if is_flag else overrides).append(word)
    return [*flags, *overrides]


def register() -> None:
    """Tell Hydra which parts of the configuration are open (see GROUPS), and which sweeps there are.

    The sweeps are stored one by one: with the folder above them on its search path, Hydra takes every folder there for a
    group of the configuration, `runs` among them once there is one, and refuses `runs=elsewhere`.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    schema = OmegaConf.create({group: {} for group in GROUPS})
    for group in GROUPS:
        OmegaConf.set_struct(schema[group], False)
    store = ConfigStore.instance()
    store.store("schema", schema)
    _learn_to_multiply()
    for name, file in sweep_files().items():
        sweep: Any = OmegaConf.load(file)
        run = OmegaConf.masked_copy(sweep, [key for key in sweep if key not in REPORTED])
        store.store(name, run, group="sweeps", package="_global_")


def resolve(config: Any) -> dict[str, Any]:
    """Return Hydra's configuration as plain Python, with every interpolation replaced and its root keys checked."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    _learn_to_multiply()  # a launcher's job starts here, in a process of its own
    try:
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "configuration"
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(f"`{key}`: a value is needed, e.g. `{key}=...`") from error
        raise ConfigError(f"`{key}`: {str(error).splitlines()[0]}") from error
    for key in plain:
        if key not in GROUPS + SCALARS:
            raise ConfigError(f"`{key}={plain[key]}`: no such key; {near_miss(key, GROUPS + SCALARS)}")
    seed = plain["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ConfigError(f"`seed={seed}`: a whole number from 0 to 4294967295 is needed")
    retries = plain["retries"]
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ConfigError(f"`retries={retries}`: a whole number of at least 0 is needed")
    if (
        not isinstance(plain["name"], str)
        or not plain["name"].replace("-", "").replace("_", "").replace(".", "").isalnum()
    ):
        raise ConfigError(f"`name={plain['name']}`: letters, digits, `-`, `_` and `.` only: it names a folder")
    return plain


def _learn_to_multiply() -> None:
    """Teach OmegaConf `${times:8,${task.length}}`: a size that follows another."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("times", lambda *factors: prod(factors), replace=True)


def mixer_files() -> Mapping[str, Path]:
    """Return the YAML of every named mixer, over all directories of Hydra's search path; the first directory wins."""
    return _files_of("mixers")


def task_files() -> Mapping[str, Path]:
    """Return the YAML of every named task, over all directories of Hydra's search path; the first directory wins."""
    return _files_of("task")


def _files_of(group: str) -> Mapping[str, Path]:
    from hydra.core.hydra_config import HydraConfig

    folders = [conf_dir()]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders = [Path(source.path) for source in sources if source.schema == "file"]
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((folder / group).glob("*.yaml")):
            files.setdefault(file.stem, file)
    return files


def _in_one_line(error: Exception) -> str:
    """Say what Hydra refused in our words: the key or the choice, and the near miss."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines[0].startswith("Could not override '"):
        key = lines[0].split("'")[1]
        return f"`{key}`: no such key; {near_miss(key, GROUPS + SCALARS)}"
    if lines[0].startswith("Error merging override "):
        key, _, value = lines[0].removeprefix("Error merging override ").partition("=")
        return f"`{key}={value}`: does not go with what the file says; {replacing(key, value)}"
    if "Could not find '" in lines[0] and any(line.startswith("Available options") for line in lines):
        group, _, choice = lines[0].split("Could not find '")[1].rstrip("'").rpartition("/")
        first = next(index for index, line in enumerate(lines) if line.startswith("Available options")) + 1
        options = [line for line in lines[first:] if "=" not in line and not line.endswith(":")]
        if extra := EXTRAS.get(f"{group}={choice}"):
            return f"`{group}={choice}`: not installed; pip install 'hybridlab[{extra}]'"
        return f"`{group}={choice}`: no such {group}; {near_miss(choice, options)}"
    return " ".join(line for line in lines if not line.startswith("See https"))
