"""Every argument of Lightning's Trainer: honoured, or refused with the reason.

`ARGUMENTS` names them all; a test compares it with the signature of the installed Lightning. What
would cut a run short is refused by `hybridlab.training.budget`. Whether the machine has the devices
is known when the Trainer is built, which is also before anything is written.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hybridlab import validate
from hybridlab.build import build, find_target
from hybridlab.errors import ConfigError, near_miss, under
from hybridlab.training.devices import STRATEGIES, strategy_for

Check = Callable[..., None]  # is called with the argument as a keyword, e.g. `check(devices=2)`

# Each precision by the names that Lightning has for it.
PRECISIONS = {
    "32-true": ("32-true", "32", 32, None),
    "64-true": ("64-true", "64", 64),
    "bf16-mixed": ("bf16-mixed", "bf16"),
    "16-mixed": ("16-mixed", "16", 16),
    "bf16-true": ("bf16-true",),
}
# Values of arguments that are what a run without the argument does.
_OFF = {
    "accumulate_grad_batches": (1,),
    "benchmark": (None, False),
    "callbacks": (None, {}, []),
    "deterministic": (None, False),
    "gradient_clip_algorithm": (None, "norm"),
    "gradient_clip_val": (None, 0),
    "limit_val_batches": (None,),
    "min_epochs": (None, 0),
    "min_steps": (None, 0),
}
PROFILERS = {"simple": "SimpleProfiler", "advanced": "AdvancedProfiler", "pytorch": "PyTorchProfiler"}
_PROFILER = "lightning.pytorch.profilers"


def check_trainer(settings: Any, logs: bool) -> None:
    """Refuse what a run would not do: unknown arguments, bad values, what a run has no place for.

    `logs` says whether the run has a logger. Every mistake is a ConfigError that says what to write
    instead.
    """
    with under("trainer"):
        if not isinstance(settings, Mapping):
            raise ConfigError(f"trainer={settings}: must be a mapping, e.g. `trainer.max_steps=100`")
        for name, value in settings.items():
            if name in ARGUMENTS:
                ARGUMENTS[name](**{name: value})
            elif name != "_target_":
                raise ConfigError(f"{name}={value}: Trainer has no such setting; {near_miss(name, ARGUMENTS)}")
        _check_together(settings)
    if settings.get("callbacks"):
        from hybridlab.training.callbacks import check_callbacks  # slow to import

        check_callbacks(settings, logs)


def lightning_arguments(settings: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return `trainer` as Lightning takes it, without callbacks; `directory` is the run's."""
    given = {name: value for name, value in settings.items() if name not in ("callbacks", "logger", "plugins")}
    given["strategy"] = strategy_for(settings.get("strategy", "auto"))
    if isinstance(settings.get("val_check_interval"), int):
        given["check_val_every_n_epoch"] = None  # Lightning counts on, and may never come to it
    if settings.get("min_steps") and settings.get("min_epochs") is None:
        given["min_epochs"] = 0  # Lightning would make it 1: the whole run
    if settings.get("profiler") is not None:
        given["profiler"] = _build_profiler(settings["profiler"], directory)
    return given


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that decide a run's results, each in one spelling.

    Arguments that change nothing are left out. How often a run validates decides what a callback of
    the user's sees; without one, it decides only at which steps the curve has a point.
    """
    kept = {name: value for name, value in settings.items() if name not in _OFF or value not in _OFF[name]}
    if isinstance(share := kept.get("limit_val_batches"), float) and share in (0, 1):
        kept = {**kept, "limit_val_batches": 0} if share == 0 else _without(kept, "limit_val_batches")
    if not settings.get("callbacks"):
        kept = _without(kept, "val_check_interval", "min_steps", "min_epochs")
    kept["precision"] = precision_of(settings)
    if "gradient_clip_val" in kept:
        kept["gradient_clip_val"] = float(kept["gradient_clip_val"])
    return kept


def precision_of(settings: Mapping[str, Any]) -> str:
    """Return the precision of a checked `trainer` by its full name."""
    precision = settings.get("precision")
    return next((one for one, names in PRECISIONS.items() if precision in names), str(precision))


def validation_limit(limit: int | float, batches: int) -> int | float:
    """Return `limit_val_batches` for so many batches: a share of them is at least one of them."""
    return max(1, int(limit * batches)) if isinstance(limit, float) and 0 < limit < 1 else limit


def _without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _only(*allowed: Any, why: str) -> Check:
    """Return the check of an argument that must keep one of these values; `why` says what else
    serves.
    """

    def check(**argument: Any) -> None:
        ((name, value),) = argument.items()
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise ConfigError(f"{name}={validate.spelt(value)}: {why}")

    return check


def _switch(*others: Any) -> Check:
    """Return the check of an argument that is true, false or one of some other values."""

    def check(**argument: Any) -> None:
        ((name, value),) = argument.items()
        if not (isinstance(value, bool) or value in others):
            words = ", ".join(map(validate.spelt, (True, False, *others)))
            raise ConfigError(f"{name}={validate.spelt(value)}: must be one of {words}")

    return check


def _check_devices(devices: Any) -> None:
    """Allow a number of devices, -1 and auto for all, and the numbers of some."""
    text = str(devices)
    some = isinstance(devices, list) and devices and all(type(each) is int and each >= 0 for each in devices)
    one = not isinstance(devices, bool | float | list) and text.removeprefix("-").isdecimal()
    several = isinstance(devices, str) and "," in text and all(part.isdecimal() for part in text.split(",") if part)
    if not (some or several or text == "auto" or (one and (int(text) > 0 or text == "-1"))):
        raise ConfigError(
            f"devices={validate.spelt(devices)}: must be a whole number of at least 1, -1 or auto: all, or a list of "
            "numbers, e.g. [0,2]"
        )


def _check_precision(precision: Any) -> None:
    """Refuse what Lightning takes and a stack cannot be trained in."""
    if any(type(precision) is type(name) and precision == name for names in PRECISIONS.values() for name in names):
        return
    if precision == "16-true":
        raise ConfigError("precision=16-true: AdamW's eps is 0 in float16; write `16-mixed` or `bf16-true`")
    if str(precision).startswith("transformer-engine"):
        raise ConfigError(
            f"precision={precision}: it replaces linear layers of the mixers, and the stack would not be the one "
            "that is evaluated; write `bf16-mixed`"
        )
    raise ConfigError(f"precision={validate.spelt(precision)}: {near_miss(str(precision), PRECISIONS)}")


def _check_limit_val_batches(limit_val_batches: Any) -> None:
    """Allow a number of batches, a share of them, and 0 for no validation."""
    if isinstance(limit_val_batches, float):
        validate.number(least=0, most=1, limit_val_batches=limit_val_batches)
    else:
        validate.whole(least=0, null="all", limit_val_batches=limit_val_batches)


def _check_val_check_interval(val_check_interval: Any) -> None:
    """Allow a number of batches, a share of the run, and a time."""
    if isinstance(val_check_interval, float):
        validate.share(val_check_interval=val_check_interval)
    elif not isinstance(val_check_interval, str | dict):  # a time: Lightning reads it
        validate.whole(null="at the end", val_check_interval=val_check_interval)


def _check_fast_dev_run(fast_dev_run: Any) -> None:
    """Allow true and false, and a number of batches."""
    if not isinstance(fast_dev_run, bool):
        validate.whole(least=0, fast_dev_run=fast_dev_run)


def _check_clip(gradient_clip_val: Any) -> None:
    """Allow a norm or value to clip by, and 0 for none."""
    if gradient_clip_val is not None:
        validate.number(least=0, gradient_clip_val=gradient_clip_val)


def _check_profiler(profiler: Any) -> None:
    """Allow Lightning's profilers by name, and any by `_target_`."""
    if isinstance(profiler, Mapping):
        _build_profiler(profiler, Path())
    elif profiler is not None:
        validate.choice(PROFILERS, profiler=profiler)


def _build_profiler(node: Any, directory: Path) -> Any:
    """Build a profiler that writes its report into the run's folder."""
    from hybridlab.training.callbacks import defaults_for

    settings = node if isinstance(node, Mapping) else {"_target_": f"{_PROFILER}.{PROFILERS[node]}"}
    own = {"dirpath": str(directory), "filename": "profile"}
    return build({**defaults_for(find_target(settings, "trainer.profiler"), own), **settings}, "trainer.profiler")


def _check_together(settings: Mapping[str, Any]) -> None:
    """Refuse arguments that contradict one another."""
    least, most = settings.get("min_steps"), settings.get("max_steps")
    if least is not None and isinstance(most, int) and least > most:
        raise ConfigError(f"min_steps={least}: must be at most max_steps={most}, which ends the run")
    if settings.get("gradient_clip_algorithm") is not None and not settings.get("gradient_clip_val"):
        raise ConfigError(
            f"gradient_clip_algorithm={settings['gradient_clip_algorithm']}: nothing is clipped; set "
            "`trainer.gradient_clip_val`"
        )


_ONE_EPOCH = "the whole run is one epoch"


def _by_budget(**argument: Any) -> None:
    """Leave an argument to `hybridlab.training.budget`, which knows how long the run is."""


ARGUMENTS: dict[str, Check] = {
    # Where it runs.
    "accelerator": partial(validate.choice, ("auto", "cpu", "gpu", "cuda")),
    "strategy": partial(validate.choice, STRATEGIES),
    "devices": _check_devices,
    "num_nodes": partial(validate.whole),
    "precision": _check_precision,
    "plugins": _only(
        None, why="what they replace is set by `trainer.precision`, `trainer.strategy` and the launcher's environment"
    ),
    "sync_batchnorm": _only(
        False, why="no mixer may normalise over the batch, which would be a leak between sequences"
    ),
    "use_distributed_sampler": _only(True, why="there is no sampler: the devices share the sequences of each batch"),
    "benchmark": _switch(None),
    "deterministic": _switch("warn", None),
    "inference_mode": _switch(),
    # How long it runs.
    "max_steps": _by_budget,
    "max_epochs": _by_budget,
    "max_time": _by_budget,
    "limit_train_batches": _by_budget,
    "overfit_batches": _by_budget,
    "min_steps": partial(validate.whole, least=0, null="none"),
    "min_epochs": _only(None, 0, 1, why=f"{_ONE_EPOCH}; write `trainer.min_steps`"),
    "fast_dev_run": _check_fast_dev_run,
    # What a step is.
    "accumulate_grad_batches": partial(validate.whole),
    "gradient_clip_val": _check_clip,
    "gradient_clip_algorithm": _only(None, "norm", "value", why="must be norm or value"),
    "detect_anomaly": _switch(),
    # When it validates.
    "limit_val_batches": _check_limit_val_batches,
    "val_check_interval": _check_val_check_interval,
    "check_val_every_n_epoch": _only(None, 1, why=f"{_ONE_EPOCH}; write `trainer.val_check_interval`"),
    "num_sanity_val_steps": partial(validate.whole, least=-1, null="2"),
    "limit_test_batches": _only(None, 1.0, why="the test split is read by the evaluation; write `evaluation.limit`"),
    "limit_predict_batches": _only(None, 1.0, why="a run predicts nothing; write `evaluation.limit`"),
    "reload_dataloaders_every_n_epochs": _only(0, why=_ONE_EPOCH),
    # What it keeps and shows.
    "logger": _only(None, why="is set by the group; write `logger=csv`, `logger=[csv,wandb]` or `logger=none`"),
    "enable_autolog_hparams": _only(True, why="a logger gets the whole configuration; `logger=none` for no logger"),
    "callbacks": lambda callbacks: None,  # by `check_callbacks`
    "log_every_n_steps": partial(validate.whole, least=0, null="50"),
    "enable_checkpointing": _switch(None),
    "enable_progress_bar": _switch(None),
    "enable_model_summary": _switch(None),
    "profiler": _check_profiler,
    "default_root_dir": _only(None, why="a run has a folder of its own; write `runs=DIR`"),
    "model_registry": _only(None, why="a run keeps its weights in its own folder"),
    "barebones": _only(
        False, why="it leaves out the curve and the validation, which a record needs; write `logger=none`, "
        "`trainer.enable_progress_bar=false`, `trainer.log_every_n_steps=0`"
    ),
}  # fmt: skip
