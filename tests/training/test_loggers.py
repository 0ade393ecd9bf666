"""Loggers get the record's numbers under the record's names; one that fails costs no run."""

import csv
import os

import pytest
from lightning.pytorch.loggers import Logger

from hybridlab.errors import ConfigError
from hybridlab.training import logger_settings
from hybridlab.training.console import quieten
from hybridlab.training.logger_settings import check_declared
from hybridlab.training.loggers import GuardedLogger, Place, check_loggers, open_loggers, publish
from tests.records.reading import read_all
from tests.report.examples import example

LOGGERS = "lightning.pytorch.loggers"
CSV = {"_target_": f"{LOGGERS}.CSVLogger", "flush_logs_every_n_steps": 1}
WANDB = {"_target_": f"{LOGGERS}.WandbLogger", "project": "hybridlab", "mode": "offline"}


class Failing(Logger):
    """Fails in a method of its own."""

    name = version = None

    def __init__(self, where: str = "__init__") -> None:
        super().__init__()
        self.where = where
        self.reach("__init__")

    def reach(self, where: str) -> None:
        if where == self.where:
            raise OSError(28, "No space left on device")

    def log_metrics(self, metrics, step=None):
        self.reach("log_metrics")

    def log_hyperparams(self, *_, **__):
        self.reach("log_hyperparams")

    def save(self):
        self.reach("save")

    def finalize(self, status):
        self.reach("finalize")


def rows(file):
    with file.open() as lines:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)]


def place(tmp_path):
    return Place(run=tmp_path / "sweep" / "run", sweep=tmp_path / "sweep")


def curve_of(record):
    return [each for each in record.measurements if each.step is not None]


def test_a_csv_holds_the_curve_and_the_final_numbers_even_of_a_resumed_run(tmp_path):
    record = example()
    curve, final = curve_of(record), [each for each in record.measurements if each.step is None]
    assert len(curve) > 2
    quieten()
    assert final
    seen = []
    for stop in (2, len(curve)):  # the first time, the run is stopped after two points
        with open_loggers({"csv": CSV, "none": None}, record, place(tmp_path), earlier=lambda: seen) as (logger,):
            for point in curve[len(seen) : stop]:
                seen.append(point)
                logger.log_metrics({point.name: point.value, "tokens": point.tokens}, point.step)
    with open_loggers({"csv": CSV}, record, place(tmp_path), earlier=lambda: seen) as loggers:
        publish(loggers, record)
    found = rows(tmp_path / "sweep" / "run" / "csv" / "metrics.csv")
    for point in curve:
        (row,) = (row for row in found if row["step"] == point.step and point.name in row)
        assert row[point.name] == point.value
    assert {each.name: each.value for each in final}.items() <= found[-1].items()
    assert "layers" in (tmp_path / "sweep" / "run" / "csv" / "hparams.yaml").read_text()


@pytest.mark.parametrize("where", ["__init__", "log_hyperparams", "log_metrics", "save", "finalize"])
def test_a_logger_that_fails_is_left_out_and_the_others_get_everything(tmp_path, capsys, where):
    record = example()
    broken = {"_target_": f"{__name__}.Failing", "where": where}
    with open_loggers({"broken": broken, "csv": CSV}, record, place(tmp_path)) as loggers:
        for point in curve_of(record):
            for logger in loggers:
                logger.log_metrics({point.name: point.value}, point.step)
        publish(loggers, record)
        loggers[0].experiment.anything(1)  # what a callback of the user's may do
    line = "logger broken: OSError: [Errno 28] No space left on device; the run goes on without it\n"
    assert capsys.readouterr().out == line
    found = rows(tmp_path / "sweep" / "run" / "csv" / "metrics.csv")
    assert {each.name for each in record.measurements} <= {name for row in found for name in row}


def test_an_interrupt_is_passed_on():
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GuardedLogger("mine", interrupt)


def test_wandb_that_cannot_write_its_staging_folder_costs_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "file" / "folder"))
    record = example()
    with open_loggers({"wandb": WANDB, "csv": CSV}, record, place(tmp_path)) as loggers:
        publish(loggers, record)
    said = capsys.readouterr().out
    assert said.startswith("logger wandb: ")
    assert "WANDB_DATA_DIR" in said
    assert said.count("\n") == 1
    assert rows(tmp_path / "sweep" / "run" / "csv" / "metrics.csv")


def test_a_run_with_a_broken_logger_is_finished(hybridlab, tiny, tmp_path):
    mine = f"+logger.mine={{_target_: {__name__}.Failing, where: log_metrics}}"
    short = ["trainer.max_steps=2", "evaluation=none", "evaluation.limit=32"]
    outcome = hybridlab("train", *tiny, "logger=[csv]", mine, *short)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("the run goes on without it") == 1
    (record,) = read_all(tmp_path / "runs")
    assert record.status == "finished"
    (file,) = (tmp_path / "runs").rglob("metrics.csv")
    (point,) = (each for each in record.measurements if each.name == "train/nll")
    assert [row["train/nll"] for row in rows(file) if "train/nll" in row] == [pytest.approx(point.value)]
    assert "_target_" in (file.parent / "hparams.yaml").read_text()
    assert "wandb" not in os.listdir(tmp_path / "runs" / "default")


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"project": "mine"}, "`logger.project=mine`: must be below the name of a logger, e.g. `logger.wandb.project=mine`"),
        ({"mode": "online"}, "`logger.mode=online`: must be below the name of a logger, e.g. `logger.wandb.mode=online`"),
        ({"_target_": "a.B"}, "`logger._target_=a.B`: must be below the name of a logger, e.g. `mine: {_target_: ...}`"),
        ({"csv": {"prefix": "a"}}, "`logger.csv`: no such logger is chosen; write `logger=csv` too"),
        ("csv", "`logger=csv`: must be a mapping from names to `_target_` and settings"),
        ({"csv": {**CSV, "prefx": "a"}}, "`logger.csv.prefx=a`: CSVLogger has no such setting; did you mean `prefix`?"),
        ({"csv": {**CSV, "name": 3}}, "`logger.csv.name=3`: must be "),
        ({"wandb": {**WANDB, "projct": "a"}}, "`logger.wandb.projct=a`: WandbLogger has no such setting; did you mean `project`"),
        ({"mine": {"_target_": "builtins.dict"}}, "`logger.mine._target_=builtins.dict`: must be a lightning.pytorch.loggers.Logger"),
        ({"mine": {"_target_": f"{LOGGERS}.CVSLogger"}}, "`logger.mine._target_=lightning.pytorch.loggers.CVSLogger`: cannot be imported"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_logger_is_refused(node, words):
    with pytest.raises(ConfigError) as refused:
        check_loggers(node)
    assert str(refused.value).startswith(words)


def test_settings_that_a_logger_has_are_allowed():
    check_loggers(
        {"wandb": {**WANDB, "entity": "team", "tags": ["mine"]}, "csv": {**CSV, "save_dir": "here"}, "no": None}
    )


@pytest.mark.parametrize(("name", "package"), [("TensorBoardLogger", "tensorboard"), ("MLFlowLogger", "mlflow")])
def test_a_package_that_is_not_installed_is_named_before_the_run(monkeypatch, name, package):
    monkeypatch.setattr(logger_settings, "find_spec", lambda _: None)
    node = {"mine": {"_target_": f"{LOGGERS}.{name}"}}
    words = f"`logger.mine`: {package} is not installed; pip install 'hybridlab[{package}]'"
    with pytest.raises(ConfigError) as refused:
        check_declared(node)
    assert str(refused.value) == words
    monkeypatch.setattr(logger_settings, "find_spec", lambda _: "found")
    check_declared(node)
