"""Measuring finished runs, without training: `hybridlab evaluate`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError
from hybridlab.evaluation.check import check_own
from hybridlab.records.claim import claimed
from hybridlab.records.json_values import plain
from hybridlab.records.record import ENDED, RunRecord
from hybridlab.records.run_id import identity_digest
from hybridlab.records.store import read
from hybridlab.training.config_file import read_config
from hybridlab.training.curve import Curve
from hybridlab.training.fit import build_trainer
from hybridlab.training.isolation import isolated
from hybridlab.training.run import measure_further
from hybridlab.training.spec import flattened, prepare


def evaluate(directory: str | Path, chosen: Any) -> RunRecord:
    """Measure what the run in a directory lacks of the evaluation in the configuration `chosen`.

    New measurements are added with their settings, those that the record has stay. Everything but
    the evaluation, the logger and the accelerator is the run's own. Raise ConfigError for a run
    that is not finished, whose weights were not kept, or whose data or classes have changed since.
    """
    directory = Path(directory)
    record = read(directory)
    if record.status not in ENDED:
        raise ConfigError(f"{directory}: the run is {record.status}; only what is trained can be evaluated")
    spec = replace(prepare(_of_run(directory, chosen)), folder=directory.parent)
    if (difference := _difference(record.identity, spec.identity)) is not None:
        raise ConfigError(f"{directory}: {difference} changed since it was trained; train it again")
    if directory.resolve().name != spec.run_id:
        raise ConfigError(f"{directory}: must be called {spec.run_id}, by the run's identity")
    with isolated(record.seed):
        check_own(spec.evaluation, spec.task, spec.build_stack)
        trainer = build_trainer(spec, Curve(spec.tokens_per_step), [])
        with claimed(directory) as claim:
            if claim is None:
                raise ConfigError(f"{directory}: another launcher is at work there")
            return measure_further(spec, read(directory), trainer, again=True)


def _of_run(directory: Path, chosen: Any) -> Any:
    """Return the configuration of a run, with the evaluation, the logger and the accelerator of
    another.
    """
    from omegaconf import OmegaConf

    config = read_config(directory)
    for node in ("evaluation", "logger"):  # unresolved: `${task.length}` is that of the run
        config[node] = OmegaConf.to_container(chosen[node], resolve=False)
    config.trainer.accelerator, config.trainer.devices = chosen.trainer.accelerator, 1
    config.trainer.pop("strategy", None)
    return config


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return what differs between two identities, in words; None if nothing does."""
    if identity_digest(before) == identity_digest(now):
        return None
    old, new = flattened(before), flattened(now)
    key = next((key for key in {**old, **new} if plain(old.get(key)) != plain(new.get(key))), "")
    path, _, last = key.rpartition(".")
    words = {
        "_content_": "the data of",
        "_source_": "the source of the class of",
        "_version_": "the mathematics or the initialisation of",
    }
    return f"{words[last]} `{path}`" if last in words else f"`{key}`"
