"""Where the configuration files are, and how Hydra composes them."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError, near_miss, replacing, under
from hybridlab.validate import whole

# The command line may set any key below these groups without Hydra's `+`. The keys are checked
# against the signature of the class that the group configures, where it is built; the message then
# names the near miss.
GROUPS = ("stack", "mixers", "task", "optimizer", "trainer", "budget", "checkpoint", "evaluation", "logger")
SCALARS = ("name", "runs", "seed", "retries", "compile")

# Launchers and sweepers that are not installed by default, and the extra of this package that
# installs each.
EXTRAS = {
    "hydra/launcher=joblib": "parallel",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/launcher=ray": "ray",
    "hydra/sweeper=optuna": "optuna",
}

# The keys of a sweep's file that only its report reads. Hydra does not see them, so they change no
# run.
REPORTED = ("tuned", "table", "published", "claims")


def conf_dir() -> Path:
    """Return the folder of the configuration files.

    It is conf/ beside the package in a checkout, and inside the package when installed.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise ConfigError("conf/config.yaml: not found beside the hybridlab package; install it again")


def sweep_files() -> dict[str, Path]:
    """Return the file of every sweep, by name."""
    return {file.stem: file for file in sorted((conf_dir().parent / "sweeps").glob("*.yaml"))}


def run_app(function: Callable[[Any], Any], arguments: Sequence[str], command: str) -> None:
    """Let Hydra compose the configuration from `arguments` and call `function` with it.

    It is called once, or once per job of a multirun.
    """
    import sys

    _check_overrides(arguments)
    import hydra

    # Hydra prints its own errors and exits with 1. With the full error it raises, and the command
    # line prints one line.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    register()
    before, sys.argv = sys.argv, [f"hybridlab {command}", *_flags_first(arguments), f"hydra.job.name={command}"]
    try:
        with _hydra_errors():
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(function)()
    finally:
        sys.argv = before


def compose(overrides: Sequence[str] = (), *, config_dir: str | Path | None = None) -> Any:
    """Return the configuration that `hybridlab train` composes from the same overrides.

    It is an OmegaConf DictConfig; its settings can be changed in place.

    `config_dir` is a directory of your own configuration files, as `--config-dir` on the command
    line. It stays on the search path of the returned configuration: see `search_path`.
    """
    for word in overrides:
        if word.startswith("-"):
            raise ConfigError(f"`{word}`: must be an override, e.g. `seed=1`; flags belong to the command line")
    _check_overrides(overrides)
    from hydra import compose as compose_config
    from hydra import initialize_config_dir
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"{config_dir}: no such directory")
        before = SearchPathQuery(provider="schema")  # as Hydra does for `--config-dir`
        path.prepend("command-line", f"file://{Path(config_dir).resolve()}", anchor=before)
    register()
    with (
        _hydra_errors(),
        initialize_config_dir(str(conf_dir()), version_base="1.3"),
    ):  # puts GlobalHydra back at the end
        GlobalHydra.instance().clear()
        Hydra.create_main_hydra2(task_name="train", config_search_path=path)
        composed = compose_config("config", overrides=list(overrides), return_hydra_config=True)
    return with_search_path(without_hydra(composed), _folders(composed.hydra.runtime.config_sources))


def _check_overrides(words: Sequence[str]) -> None:
    """Refuse overrides on which Hydra fails without naming the mistake."""
    for word in words:
        if word.lstrip("+").startswith("hydra.sweeper.params="):  # OmegaConf cannot merge it into null
            raise ConfigError(f"`{word}`: name each key as an override of its own, e.g. `optimizer.lr=1e-3,2e-3`")
        group, _, choice = word.partition("=")
        if choice == "null" and group in GROUPS and (choices := _files_of(group)):
            raise ConfigError(f"`{word}`: no such {group}; {near_miss(choice, choices)}")
    _check_budget(words)


def _check_budget(words: Sequence[str]) -> None:
    """Refuse overrides that set a budget and, differently, `trainer.max_steps`.

    Where they are composed, one that repeats the value of a preset could not be told from it.
    """
    given = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    max_steps = given.get("trainer.max_steps", "null")
    for key in ("budget.steps", "budget.seconds", "budget.flops"):
        amount = given.get(key, "null")
        if "null" not in (amount, max_steps) and (key, amount) != ("budget.steps", max_steps):
            raise ConfigError(f"`{key}={amount}`: with trainer.max_steps={max_steps} there are two; give one of them")


@contextmanager
def _hydra_errors() -> Iterator[None]:
    """Turn an error of Hydra's into a ConfigError of one line."""
    from hydra.errors import HydraException

    try:
        yield
    except HydraException as error:
        raise ConfigError(_in_one_line(error)) from error


FLAGS_WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-dir", "-cd"),
    *("--config-name", "-cn", "--config-path", "-cp"),
)


def split_paths(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of a command line that are paths, and its flags and overrides."""
    paths, others = [], []
    for index, word in enumerate(arguments):
        of_flag = index > 0 and arguments[index - 1] in FLAGS_WITH_VALUE
        (others if of_flag or word.startswith(("-", "~")) or "=" in word else paths).append(word)
    return paths, others


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Put Hydra's flags before the overrides.

    Its parser refuses overrides on both sides of a flag.
    """
    flags, overrides = [], []
    for index, word in enumerate(arguments):
        is_flag = word.startswith("-") or (index > 0 and arguments[index - 1] in FLAGS_WITH_VALUE)
        (flags if is_flag else overrides).append(word)
    return [*flags, *overrides]


def register() -> None:
    """Open the config groups of GROUPS, and store the sweeps as the group `sweeps`.

    The folder above the sweeps is not put on Hydra's search path. Hydra would take every folder in
    it for a group, `runs` among them once it exists, and refuse `runs=elsewhere`.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    schema = OmegaConf.create({group: {} for group in GROUPS})
    for group in GROUPS:
        OmegaConf.set_struct(schema[group], False)
    store = ConfigStore.instance()
    store.store("schema", schema)
    _register_times()
    for name, file in sweep_files().items():
        sweep: Any = OmegaConf.load(file)
        run = OmegaConf.masked_copy(sweep, [key for key in sweep if key not in REPORTED])
        store.store(name, run, group="sweeps", package="_global_")


def without_hydra(config: Any) -> Any:
    """Return a copy of a composed configuration without the node that configures Hydra itself."""
    from omegaconf import OmegaConf

    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def resolve(config: Any) -> dict[str, Any]:
    """Return a composed configuration as plain Python, resolved, with its root keys checked."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    _register_times()  # a launcher's job starts here, in a process of its own
    try:
        plain: dict[str, Any] = OmegaConf.to_container(without_hydra(config), resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "configuration"
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(f"`{key}`: must be given, e.g. `{key}=...`") from error
        raise ConfigError(f"`{key}`: {str(error).splitlines()[0]}") from error
    for key in plain:
        if key not in GROUPS + SCALARS:
            raise ConfigError(f"`{key}={plain[key]}`: no such key; {near_miss(key, GROUPS + SCALARS)}")
    with under(""):
        whole(least=0, most=2**32 - 1, seed=plain["seed"])
        whole(least=0, retries=plain["retries"])
    name = plain["name"]
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]*[^\W_][\w.-]*", name):
        raise ConfigError(f"`name={name}`: must consist of letters, digits, `-`, `_` and `.`: it names a folder")
    return plain


def _register_times() -> None:
    """Register the resolver `times`, as in `${times:8,${task.length}}`, with OmegaConf."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("times", lambda *factors: prod(factors), replace=True)


def search_path(config: Any = None) -> list[Path]:
    """Return the folders whose files a configuration may name: conf/, then the user's.

    A configuration of `compose` carries its own, under `hydra.searchpath`. Otherwise they are those
    of the running Hydra application.
    """
    from hydra.core.hydra_config import HydraConfig

    if config is not None and "hydra" in config:
        return [conf_dir(), *map(Path, config["hydra"]["searchpath"])]
    return _folders(HydraConfig.get().runtime.config_sources) if HydraConfig.initialized() else [conf_dir()]


def with_search_path(config: Any, folders: Sequence[Path]) -> Any:
    """Return a configuration, or a plain one, that carries its search path."""
    added = {"searchpath": [str(folder) for folder in folders if folder != conf_dir()]}
    if isinstance(config, dict):
        return {**config, "hydra": added}
    config["hydra"] = added
    return config


def mixer_files(folders: Sequence[Path] | None = None) -> Mapping[str, Path]:
    """Return the YAML of every named mixer below some folders, by default `search_path()`.

    The first folder wins.
    """
    return _files_of("mixers", folders)


def task_files(folders: Sequence[Path] | None = None) -> Mapping[str, Path]:
    """Return the YAML of every named task below some folders, by default `search_path()`.

    The first folder wins.
    """
    return _files_of("task", folders)


def measure_files(folders: Sequence[Path] | None = None) -> Mapping[str, Path]:
    """Return the YAML of every named measure below some folders, by default `search_path()`.

    The first folder wins.
    """
    return _files_of("evaluation/measures", folders)


def _files_of(group: str, folders: Sequence[Path] | None = None) -> Mapping[str, Path]:
    files: dict[str, Path] = {}
    for folder in search_path() if folders is None else folders:
        for file in sorted((folder / group).glob("*.yaml")):
            files.setdefault(file.stem, file)
    return files


def _folders(sources: Any) -> list[Path]:
    """Return the folders among the sources of a composed configuration."""
    return [Path(source.path) for source in sources if source.schema == "file"]


def _in_one_line(error: Exception) -> str:
    """Return an error of Hydra's as one line: the refused key or choice, and the near miss."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    _, *quoted = lines[0].split("'")
    if lines[0].startswith("Could not override '"):
        return f"`{quoted[0]}`: no such key; {near_miss(quoted[0], GROUPS + SCALARS)}"
    if lines[0].startswith("Error merging override "):
        key, _, value = lines[0].removeprefix("Error merging override ").partition("=")
        if (group := key.replace(".", "/")) != key and (conf_dir() / group).is_dir():
            return f"`{key}={value}`: its options are chosen by name, write `{group}={value}`"
        return f"`{key}={value}`: cannot be merged into what the file sets; {replacing(key, value)}"
    if lines[0].startswith("Ambiguous value for argument '"):
        return f"`{quoted[0]}`: several values; `hybridlab train -m` sweeps over them, and a list is written [a,b]"
    options = _options(lines)
    if "Could not find '" in lines[0] and options is not None:
        group, _, choice = lines[0].split("Could not find '")[1].rstrip("'").rpartition("/")
        if extra := EXTRAS.get(f"{group}={choice}"):
            return f"`{group}={choice}`: not installed; pip install 'hybridlab[{extra}]'"
        return f"`{group}={choice}`: no such {group}; {near_miss(choice, options)}"
    if "Could not load '" in lines[0]:
        group, _, choice = lines[0].split("Could not load '")[1].split("'")[0].rpartition("/")
        searched = [Path(folder) for folder in re.findall(r"path=file://(\S+)", " ".join(lines))]
        kind = group.rpartition("/")[2].removesuffix("s")
        return f"`{group}={choice}`: no such {kind}; {near_miss(choice, _files_of(group, searched))}"
    return " ".join(line for line in lines if not line.startswith("See https"))


def _options(lines: list[str]) -> list[str] | None:
    """Return the options that an error of Hydra's lists, or None if it lists none."""
    for index, line in enumerate(lines):
        if line.startswith("Available options"):
            return [option for option in lines[index + 1 :] if "=" not in option and not option.endswith(":")]
    return None
