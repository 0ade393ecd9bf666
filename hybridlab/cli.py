"""The command line: `hybridlab train | check | mixers | tasks | bench | status | report`."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hybridlab.errors import ConfigError, RunFailedError, near_miss

USAGE = """\
hybridlab: ablations of hybrid sequence models, with quality broken down by layer group

  hybridlab train [OVERRIDE ...]  train and evaluate a stack; with -m, every combination of a sweep
  hybridlab check [OVERRIDE ...]  the leak gate alone: does any mixer, or the stack, see the future?
  hybridlab mixers [OVERRIDE ...] the named mixers, with kind, paper, parameters and state
  hybridlab tasks [OVERRIDE ...]  the named tasks: what is predicted, how it is judged, its source
  hybridlab bench [OVERRIDE ...]  each mixer's forward + backward beside attention; a training step
              --mixers[=A,B]      the mixers alone (or some); on a GPU also beside fla's kernels
  hybridlab status DIR            the runs under DIR: done, running, failed, waiting; the time left
  hybridlab report DIR [--base X] the table of the runs under DIR, and report.md, report.html there
              --sweep NAME [DIR]  a sweep's table beside the paper's, and whether its claims hold

An OVERRIDE is Hydra's: stack.groups.deep.mixer=mamba2, mixers.sliding.window=128, task.length=1024,
trainer=gpu, seed=1. `hybridlab train --help` lists the configuration; `hybridlab train --cfg job`
prints it.
"""


class ReportedError(RuntimeError):
    """A job of a multirun failed and has said so; `code` is the exit code it asks for, `folder` the sweep's."""

    def __init__(self, code: int, folder: str) -> None:
        super().__init__(code, folder)  # both, so that it comes back whole from a launcher's worker
        self.code = code
        self.folder = folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a user's mistake is one line on stderr and exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "check": _check,
        "mixers": _mixers,
        "tasks": _tasks,
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
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ConfigError, OSError) as error:
        code = _say(error)
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on from the last checkpoint")
        code = 130
    sys.exit(code)


def _train(arguments: list[str]) -> int:
    def job(config: Any) -> float | None:
        from hybridlab.training.run import train_and_show

        return train_and_show(config)

    return _run_jobs(job, arguments, "train")


def _check(arguments: list[str]) -> int:
    def job(config: Any) -> None:
        from hybridlab.evaluation.leak import check_plan
        from hybridlab.training.job import prepare

        prepared = prepare(config)
        for line in prepared.matching:
            print(f"match: {line}")
        for line in prepared.without_kernels():
            print(f"kernels: {line}")
        for line in check_plan(prepared.plan, prepared.build_stack(), prepared.task.length):
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


def _bench(arguments: list[str]) -> int:
    chosen = [word for word in arguments if word.partition("=")[0] == "--mixers"]
    names = [name for word in chosen if "=" in word for name in word.partition("=")[2].split(",")]

    def job(config: Any) -> None:
        from hybridlab.bench import bench, bench_mixers

        bench_mixers(config, names) if chosen else bench(config)

    return _run_jobs(job, [word for word in arguments if word not in chosen], "bench")


def _status(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="hybridlab status", description="How far the runs under a folder are.")
    parser.add_argument("directory", metavar="DIR", help="a sweep's folder, runs/<name>")
    from hybridlab.status import show_status

    show_status(parser.parse_args(arguments).directory)
    return 0


def _report(arguments: list[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(prog="hybridlab report", description="The table of the runs under a folder.")
    parser.add_argument(
        "directory", metavar="DIR", nargs="?", help="a sweep's folder, runs/<name>, one run's, or an archive"
    )
    parser.add_argument("--base", help="the stack that swaps are measured against, e.g. early=full")
    parser.add_argument(
        "--sweep", metavar="NAME", help="print this sweep's table; of its reference records, unless DIR is given"
    )
    parser.add_argument("--keep", action="store_true", help="with --sweep: make the runs its reference records")
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
        raise ConfigError("report: a folder of runs or --sweep NAME is needed")
    return 0


def _run_jobs(function: Callable[[Any], Any], arguments: list[str], command: str) -> int:
    """Run `function` on the composed configuration(s); a failed job of a multirun does not stop the others."""
    from hybridlab.config import run_app

    codes: list[int] = []

    def job(config: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            return function(config)
        except BrokenPipeError:
            raise
        except (ConfigError, OSError, RunFailedError) as error:
            code = _say(error)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise ReportedError(code, f"{config.runs}/{config.name}")  # Hydra goes on with the next job
        codes.append(code)
        return None

    try:
        run_app(job, arguments, command)
    except ReportedError as error:
        from hybridlab.training.report_at_end import report_sweep

        report_sweep(Path(error.folder))
        return error.code
    return max(codes, default=0)


def _say(error: Exception) -> int:
    """Say in one line what went wrong, and return the exit code: 1 for a run that failed, 2 for what the user can mend."""
    if isinstance(error, OSError) and error.filename:  # a folder without permission, a full disk
        _complain(f"{error.filename}: {error.strerror}")
    else:
        _complain(str(error))
    return 1 if isinstance(error, RunFailedError) else 2


def _complain(line: str) -> None:
    print(f"hybridlab: {line}", file=sys.stderr)
