"""The command line: `hybridlab train | evaluate | check | ... | report`."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError, RunFailedError, near_miss
from hybridlab.stdout import print_any

USAGE = """\
hybridlab: ablations of hybrid sequence models, with quality broken down by layer group

  hybridlab train [OVERRIDE ...]  train and evaluate a stack; with -m, every combination of a sweep
  hybridlab evaluate DIR ... [OVERRIDE ...]
                                  measure finished runs further, e.g. evaluation=full, without training
  hybridlab check [OVERRIDE ...]  run only the leak gate: does a mixer, or the stack, see the future?
  hybridlab mixers [OVERRIDE ...] list the named mixers, with kind, paper, parameters and state
  hybridlab tasks [OVERRIDE ...]  list the named tasks, with what is predicted, the measure, the source
  hybridlab measures              list the measures: unit, direction, definition, source
  hybridlab bench [OVERRIDE ...]  time each mixer, forward + backward, and a training step
              --mixers[=A,B]      time only the mixers, or some of them; on a GPU beside fla's kernels
  hybridlab status DIR            count the runs under DIR that are done, running, failed, waiting
  hybridlab report DIR [--base X] print the table of the runs under DIR; write report.md, report.html
              --sweep NAME [DIR]  print a sweep's table beside the paper's, and check its claims

An OVERRIDE is Hydra's: stack.groups.deep.mixer=mamba2, mixers.sliding.window=128, task.length=1024,
trainer=gpu, seed=1. `hybridlab train --help` lists the configuration; `hybridlab train --cfg job`
prints it.
"""


class ReportedError(RuntimeError):
    """A failed job of a multirun, whose error is printed: exit `code` and `folder` of the sweep."""

    def __init__(self, code: int, folder: str) -> None:
        super().__init__(code, folder)  # both, so that it can be pickled by a launcher's worker
        self.code = code
        self.folder = folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    A user's mistake prints one line on stderr and exits with code 2.
    """
    print_any()
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "evaluate": _evaluate,
        "check": _check,
        "mixers": _mixers,
        "tasks": _tasks,
        "measures": _measures,
        "bench": _bench,
        "status": _status,
        "report": _report,
    }
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        sys.exit(0 if words else 2)
    if words[0] in ("-V", "--version"):
        from hybridlab import __version__

        print(f"hybridlab {__version__}")
        sys.exit(0)
    if words[0] not in commands:
        _complain(f"`{words[0]}`: no such command; {near_miss(words[0], commands)}")
        sys.exit(2)
    try:
        code = commands[words[0]](words[1:])
    except BrokenPipeError:  # the reader of a pipe, e.g. `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ConfigError, OSError) as error:
        code = _print_error(error)
    except KeyboardInterrupt:
        _complain("interrupted; the same command resumes from the last checkpoint")
        code = 130
    sys.exit(code)


def _train(arguments: list[str]) -> int:
    def job(config: Any) -> float | None:
        from hybridlab.training.run import train
        from hybridlab.training.spec import prepare

        spec = prepare(config)
        record = train(spec)
        if record is None:
            return None
        if not _is_multirun():  # a sweep's table comes at its end
            from hybridlab.report import print_and_write

            print_and_write(spec.directory)
        validated = [row.value for row in record.measurements if row.name == "validation/nll"]
        return validated[-1] if validated else None

    return _run_jobs(job, arguments, "train")


def _evaluate(arguments: list[str]) -> int:
    from hybridlab.config import split_paths

    paths, overrides = split_paths(arguments)
    if not paths and "--help" not in overrides:
        raise ConfigError("evaluate: give folders of runs or of sweeps, and e.g. evaluation=full")
    folders = [folder.resolve() for path in paths for folder in _runs_at(Path(path))]

    def job(config: Any) -> None:
        from hybridlab.report import print_and_write
        from hybridlab.training.further import evaluate

        evaluate(config.run, config)
        if not _is_multirun():  # a sweep's table comes at its end
            print_and_write(config.run)

    return _run_jobs(job, [*overrides, *_as_jobs(folders)], "evaluate")


def _runs_at(path: Path) -> list[Path]:
    """Return the folder of a run, or those of all runs below a folder."""
    from hybridlab.records.store import FILE, run_directories

    return [path] if (path / FILE).is_file() else sorted(run_directories(path))


def _as_jobs(folders: Sequence[Path]) -> list[str]:
    """Return the overrides by which Hydra calls a job for each folder of a run."""
    quoted = ["'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'" for folder in folders]
    if len(folders) <= 1:
        return [f"+run={each}" for each in quoted]
    sweeps = {folder.parent for folder in folders}
    at_end = ["~hydra.callbacks.report"]  # no one report is on runs of several sweeps
    if len(sweeps) == 1:
        sweep = sweeps.pop()
        at_end = [f"runs='{sweep.parent}'", f"name='{sweep.name}'"]
    return ["--multirun", f"+run={','.join(quoted)}", *at_end]


def _check(arguments: list[str]) -> int:
    def job(config: Any) -> None:
        from hybridlab.evaluation.check import check_own
        from hybridlab.evaluation.leak import check_plan, conditions_of
        from hybridlab.training.spec import prepare

        spec = prepare(config)
        check_own(spec.evaluation, spec.task, spec.build_stack)
        for line in spec.matching:
            print(f"match: {line}")
        for line in spec.without_kernels():
            print(f"kernels: {line}")
        conditions = conditions_of(spec.task, spec.evaluation, spec.config["trainer"])
        for line in check_plan(spec.plan, spec.build_stack(), spec.task.length, **conditions):
            print(line)

    return _run_jobs(job, arguments, "check")


def _mixers(arguments: list[str]) -> int:
    def job(config: Any) -> None:
        from hybridlab.catalogue import show_mixers

        show_mixers(config)

    return _run_jobs(job, arguments, "mixers")


def _tasks(arguments: list[str]) -> int:
    def job(config: Any) -> None:
        from hybridlab.task_catalogue import show_tasks

        show_tasks()

    return _run_jobs(job, arguments, "tasks")


def _measures(arguments: list[str]) -> int:
    def job(config: Any) -> None:
        from hybridlab.measure_catalogue import show_measures

        show_measures()

    return _run_jobs(job, arguments, "measures")


def _bench(arguments: list[str]) -> int:
    chosen = [word for word in arguments if word.partition("=")[0] == "--mixers"]
    names = [name for word in chosen if "=" in word for name in word.partition("=")[2].split(",")]

    def job(config: Any) -> None:
        from hybridlab.bench import bench, bench_mixers

        bench_mixers(config, names) if chosen else bench(config)

    return _run_jobs(job, [word for word in arguments if word not in chosen], "bench")


def _status(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="hybridlab status", description="Print how far the runs under a folder are.")
    parser.add_argument("directory", metavar="DIR", help="the folder of a sweep, runs/<name>")
    from hybridlab.status import show_status

    show_status(parser.parse_args(arguments).directory)
    return 0


def _report(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="hybridlab report", description="Print the table of the runs under a folder.")
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", help="the folder of a sweep, runs/<name>, or of a run; or an archive"
    )
    parser.add_argument("--base", help="the stack that swaps are compared with, e.g. early=full")
    parser.add_argument(
        "--sweep", metavar="NAME", help="print the table of this sweep, from DIR or from its reference records"
    )
    parser.add_argument("--keep", action="store_true", help="with --sweep: keep the runs as its reference records")
    parser.add_argument(
        "--sweeps-readme", action="store_true", help="write sweeps/README.md from the reference records"
    )
    options = parser.parse_args(arguments)
    if options.sweeps_readme:
        from hybridlab.report.sweeps.readme import write_readme

        print(write_readme())
    elif options.sweep:
        from hybridlab.report import print_sweep

        print_sweep(options.sweep, options.directory, keep=options.keep)
    elif options.directory:
        from hybridlab.report import print_and_write

        print_and_write(options.directory, options.base)
    else:
        raise ConfigError("report: give a folder of runs or --sweep NAME")
    return 0


def _run_jobs(function: Callable[[Any], Any], arguments: list[str], command: str) -> int:
    """Call `function` on each composed configuration and return the exit code.

    The jobs of a multirun run even if one fails.
    """
    from hybridlab.config import run_app

    codes: list[int] = []

    def job(config: Any) -> Any:
        try:
            return function(config)
        except BrokenPipeError:
            raise
        except (ConfigError, OSError, RunFailedError) as error:
            code = _print_error(error)
        if _is_multirun():
            raise ReportedError(code, f"{config.runs}/{config.name}")  # Hydra continues with the next job
        codes.append(code)
        return None

    try:
        run_app(job, arguments, command)
    except ReportedError as error:
        from hybridlab.training.hydra_callbacks import report_sweep

        report_sweep(Path(error.folder))
        return error.code
    return max(codes, default=0)


def _is_multirun() -> bool:
    """Return whether the running Hydra application is a multirun."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode == RunMode.MULTIRUN


def _print_error(error: Exception) -> int:
    """Print one line; return the exit code: 1 for a run that failed, 2 for a user's mistake."""
    if isinstance(error, OSError) and error.filename:  # a folder without permission, a full disk
        _complain(f"{error.filename}: {error.strerror}")
    else:
        _complain(str(error))
    return 1 if isinstance(error, RunFailedError) else 2


def _complain(line: str) -> None:
    print(f"hybridlab: {line}", file=sys.stderr)
