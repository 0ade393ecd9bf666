"""The Python interface: compose a configuration, train it, open runs, put their measurements into a
data frame.

`hybridlab` exports these names. Everything else in the package may change without notice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridlab.build import find_target
from hybridlab.config import compose as compose
from hybridlab.config import mixer_files, search_path, task_files
from hybridlab.errors import ConfigError, RunFailedError
from hybridlab.records.found import read_found
from hybridlab.records.measurement import Measurement
from hybridlab.records.record import RunRecord
from hybridlab.records.store import FILE, run_directories
from hybridlab.report.runs.stack_runs import by_stack

if TYPE_CHECKING:
    import pandas
    import torch
    from omegaconf import DictConfig

    from hybridlab.stack.model import Stack

RUN_COLUMNS = ("run_id", "seed", "name", "status", "reason")


@dataclass(frozen=True)
class Run:
    """One run: its record, and its folder, or None for a run from an archive."""

    record: RunRecord
    folder: Path | None

    @property
    def config(self) -> "DictConfig":
        """The run's configuration, which `train` takes again: it is the same run.

        It is that of the file config.yaml in the run's folder; for a run from an archive, that of
        the record. Settings can be changed in place.
        """
        from omegaconf import OmegaConf

        from hybridlab.training.config_file import FILE, read_config

        if self.folder is not None and (self.folder / FILE).is_file():
            return read_config(self.folder)
        return OmegaConf.create(self.record.config)

    def stack(self, device: "str | torch.device" = "cpu") -> "Stack":
        """Return the trained stack, in evaluation mode, on any device; the data are not needed.

        Raise ConfigError if the weights were not kept, or are not those of the record.
        """
        from hybridlab.training.weights import load_stack

        if self.folder is None:
            raise ConfigError(f"run {self.record.run_id}: an archive holds records, no weights")
        return load_stack(self.folder, self.record.weights).to(device).eval()

    def evaluate(self, evaluation: Any = "full") -> "Run":
        """Measure what the run lacks of an evaluation; return the run with the new measurements.

        `evaluation` is the name of a preset, or a list of overrides, e.g. ["evaluation=full",
        "evaluation.limit=4096"].
        """
        from hybridlab.training.further import evaluate

        if self.folder is None:
            raise ConfigError(f"run {self.record.run_id}: an archive holds records, no weights")
        overrides = [f"evaluation={evaluation}"] if isinstance(evaluation, str) else list(evaluation)
        evaluate(self.folder, compose(overrides))
        return _runs(self.folder)[0]


@dataclass(frozen=True)
class Sweep:
    """The runs below a folder or in an archive, the first made first."""

    runs: tuple[Run, ...]

    def frame(self) -> "pandas.DataFrame":
        """Return a data frame with one row per measurement; a run without measurements is one row.

        The columns are run_id, seed, name, status and reason of the run; `chosen`; a column per
        choice, named by its dotted key (e.g. `stack.groups.deep.mixer`); and the fields of the
        measurement. `chosen` is False for runs whose learning rate was tried and not chosen: a
        report shows, for each stack, the learning rate with the best validation NLL.
        """
        try:
            import pandas
        except ImportError as error:
            raise ConfigError("pandas is not installed; pip install 'hybridlab[frame]'") from error
        return pandas.DataFrame(_rows([run.record for run in self.runs]))


def train(config: Any) -> Run:
    """Train and evaluate the run of a configuration of `compose` and return it.

    A run that has finished is read back.

    The run is that of the command line: the same folder, the same run id, the same numbers. A
    stopped run resumes from its last checkpoint. Raise ConfigError for a mistake and RunFailedError
    for a run that fails or diverges, as the command line does.
    """
    from hybridlab.training.rehearsal import is_rehearsal
    from hybridlab.training.run import train as train_spec
    from hybridlab.training.spec import prepare

    spec = prepare(config)
    if is_rehearsal(spec):
        raise ConfigError("`trainer.fast_dev_run`: leaves no run to return; use `hybridlab train`")
    train_spec(spec)
    if not (spec.directory / FILE).exists():
        raise RunFailedError(f"run {spec.run_id}: another launcher is about to train it")
    return _runs(spec.directory)[0]


def open(folder: str | Path) -> Run | Sweep:
    """Return the run in a folder, or the sweep of all runs below it.

    The path of an archive gives a sweep, too.
    """
    runs = _runs(Path(folder))
    return runs[0] if (Path(folder) / FILE).is_file() else Sweep(runs)


def list_mixers(*, config_dir: str | Path | None = None) -> dict[str, str]:
    """Return the kind and the paper of every named mixer, by name.

    With `config_dir`, also of your own.
    """
    files = mixer_files(search_path(compose(config_dir=config_dir)))
    return {name: f"{mixer.kind}: {mixer.paper}" for name, mixer in _targets(files, "mixers.")}


def list_tasks(*, config_dir: str | Path | None = None) -> dict[str, str]:
    """Return, for every named task, which positions are predicted and from what.

    With `config_dir`, also of your own.
    """
    files = task_files(search_path(compose(config_dir=config_dir)))
    return {name: task.predicts for name, task in _targets(files, "task=")}


def _runs(path: Path) -> tuple[Run, ...]:
    """Return the runs of a folder or an archive, each with its state as it is found."""
    if path.is_file():
        return tuple(Run(record, None) for record in read_found(path))
    runs = (Run(read_found(folder)[0], folder) for folder in run_directories(path))
    return tuple(sorted(runs, key=lambda run: (run.record.created, run.record.run_id)))


def _targets(files: Mapping[str, Path], where: str) -> Iterable[tuple[str, Any]]:
    """Yield the name of each file and the class that its `_target_` names."""
    from omegaconf import OmegaConf

    for name, file in files.items():
        settings: Any = OmegaConf.to_container(OmegaConf.load(file))
        yield name, find_target(settings, f"{where}{name}")


def _rows(records: list[RunRecord]) -> list[dict[str, Any]]:
    """Return the rows of a data frame of measurements, all with the same keys."""
    chosen = {record.run_id for stack in by_stack(records) for record in stack.records}
    choices = dict.fromkeys(key for record in records for key in record.choices)
    nothing: dict[str, Any] = dict.fromkeys(field.name for field in fields(Measurement))
    rows: list[dict[str, Any]] = []
    for record in records:
        run = {name: getattr(record, name) for name in RUN_COLUMNS}
        run["chosen"] = record.run_id in chosen
        run |= {key: record.choices.get(key) for key in choices}
        rows += [run | asdict(each) for each in record.measurements] or [run | nothing]
    return rows
