"""The Python interface: a configuration composed, trained, opened, and its measurements in a data
frame.
"""

import subprocess
import sys

import pandas
import pytest
from omegaconf import OmegaConf

import hybridlab
from hybridlab.config import resolve
from hybridlab.records import archive, store
from hybridlab.records.measurement import Measurement
from hybridlab.training.spec import prepare
from tests.conftest import CONF
from tests.report.examples import example, measurement
from tests.report.examples import run as run_of
from tests.test_bad_input import CASES

RATE, MIXER = "optimizer.lr", "stack.groups.early.mixer"


@pytest.fixture
def overrides(tiny, tmp_path):
    """The overrides of a run of about a second, without the flag that names their directory."""
    return [*tiny[2:], "logger=none", "trainer.max_steps=2", f"runs={tmp_path}/runs"]


def written(folder, records):
    for record in records:
        store.write(record, folder / record.run_id)
    return folder


def test_the_package_imports_nothing_heavy_until_it_is_used():
    code = "import sys, hybridlab; print({'torch', 'hydra', 'omegaconf', 'pandas'} & set(sys.modules), dir(hybridlab))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"set() {sorted([*hybridlab.__all__, '__version__'])}"


def test_every_public_name_is_there_and_no_other():
    assert all(getattr(hybridlab, name) for name in hybridlab.__all__)
    with pytest.raises(AttributeError, match="module 'hybridlab' has no attribute 'trian'"):
        _ = hybridlab.trian


def test_a_run_trained_in_python_is_that_of_the_command_line(hybridlab, tiny, overrides):
    import hybridlab as package

    run = package.train(package.compose(overrides, config_dir=CONF))
    assert run.record.status == "finished"
    again = hybridlab("train", *tiny[:2], *overrides)
    assert f"run {run.record.run_id}: finished already, in {run.folder}" in again.out
    assert package.open(run.folder) == run


def test_two_runs_in_one_process_and_a_setting_changed_in_place(overrides, tmp_path):
    config = hybridlab.compose(overrides, config_dir=CONF)
    first = hybridlab.train(config)
    config.seed = 1
    config.stack.groups.deep.mixer.name = "linear"
    second = hybridlab.train(config)
    assert first.record.run_id != second.record.run_id
    sweep = hybridlab.open(tmp_path / "runs")
    assert [run.folder for run in sweep.runs] == [first.folder, second.folder]
    frame = sweep.frame()
    assert set(frame.run_id) == {first.record.run_id, second.record.run_id}
    assert set(frame["stack.groups.deep.mixer"]) == {"full", "linear"}


def test_a_directory_of_ones_own_stays_on_the_search_path(overrides, tmp_path, monkeypatch):
    (tmp_path / "mine" / "mixers").mkdir(parents=True)
    (tmp_path / "mine" / "mixers" / "my_full.yaml").write_text((CONF.parents[1] / "conf/mixers/full.yaml").read_text())
    for group in ("stack", "trainer"):
        (tmp_path / "mine" / group).symlink_to(CONF / group)
    monkeypatch.chdir(tmp_path)
    config = hybridlab.compose([*overrides, "stack.groups.deep.mixer.name=my_full"], config_dir="mine")
    assert prepare(config).plan.layers[-1].mixer == "my_full"
    assert prepare(OmegaConf.create(OmegaConf.to_yaml(config))).plan.layers[-1].mixer == "my_full"
    assert "my_full" in hybridlab.list_mixers(config_dir="mine")
    assert "my_full" not in hybridlab.list_mixers()


def test_a_sweep_of_the_repository_can_be_composed():
    assert hybridlab.compose(["+sweeps=early_mixer"]).name == "early_mixer"


def test_composing_gives_what_the_command_line_prints(hybridlab):
    import hybridlab as package

    printed = hybridlab("train", "task=mqar_small", "--cfg", "job", "--resolve").out
    assert resolve(package.compose(["task=mqar_small"])) == OmegaConf.to_container(OmegaConf.create(printed))


COMPOSED = [case for case, (words, _) in CASES.items() if words[0] == "train" and "-m" not in words]


@pytest.mark.parametrize("case", COMPOSED)
def test_a_mistake_is_the_error_of_the_command_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (_, *words), message = CASES[case]
    with pytest.raises(hybridlab.ConfigError) as refused:
        hybridlab.train(hybridlab.compose(words))
    assert str(refused.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir", "mine"], "`--config-dir`: must be an override, e.g. `seed=1`"),
        (["seed=0,1"], "`seed=0,1`: several values; `hybridlab train -m` sweeps over them"),
    ],
)
def test_what_belongs_to_the_command_line_is_refused(words, message):
    with pytest.raises(hybridlab.ConfigError, match=f"^{message}"):
        hybridlab.compose(words)


def test_a_directory_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(hybridlab.ConfigError, match="nowhere: no such directory"):
        hybridlab.compose(config_dir=tmp_path / "nowhere")
    with pytest.raises(hybridlab.ConfigError, match="nowhere: no such directory"):
        hybridlab.open(tmp_path / "nowhere")


def test_a_rehearsal_leaves_no_run(overrides):
    with pytest.raises(hybridlab.ConfigError, match=r"^`trainer.fast_dev_run`: leaves no run to return"):
        hybridlab.train(hybridlab.compose([*overrides, "+trainer.fast_dev_run=true"], config_dir=CONF))


def test_a_run_that_diverges_raises_and_can_be_opened(overrides, tmp_path):
    lost = ["optimizer.lr=1e30", "trainer.gradient_clip_val=null", "trainer.max_steps=10"]
    with pytest.raises(hybridlab.RunFailedError, match="diverged: DivergedError: the training loss is nan"):
        hybridlab.train(hybridlab.compose([*overrides, *lost], config_dir=CONF))
    (run,) = hybridlab.open(tmp_path / "runs").runs
    assert run.record.status == "diverged"


def test_mixers_and_tasks_are_listed_with_what_they_are():
    assert hybridlab.list_mixers()["full"].startswith("full: ")
    assert hybridlab.list_tasks()["mqar"]


def test_a_frame_has_a_row_per_measurement_and_one_for_a_run_without(tmp_path):
    records = [example(seed=0), example(seed=1, status="failed", reason="out of memory")]
    frame = hybridlab.open(written(tmp_path, records)).frame()
    measured = frame[frame.run_id == records[0].run_id]
    assert len(frame) == len(records[0].measurements) + 1
    assert list(measured.value) == [each.value for each in records[0].measurements]
    assert set(Measurement.__dataclass_fields__) <= set(frame.columns)
    (failed,) = frame[frame.status == "failed"].to_dict("records")
    assert (failed["run_id"], failed["seed"], failed["reason"]) == (records[1].run_id, 1, "out of memory")
    assert pandas.isna(failed["value"])
    assert set(frame[MIXER]) == {"gated_conv"}


def test_chosen_marks_the_learning_rate_with_the_best_validation_nll(tmp_path):
    losses = {("full", 0.001): 2.0, ("full", 0.003): 1.5, ("linear", 0.001): 1.8, ("linear", 0.003): 1.9}
    records = [
        run_of({MIXER: mixer, RATE: rate}, seed, [measurement("nll", loss)], loss)
        for (mixer, rate), loss in losses.items()
        for seed in (0, 1)
    ]
    for number, record in enumerate(records):
        record.run_id = f"{number:012}"
    frame = hybridlab.open(written(tmp_path, records)).frame()
    chosen = {(row[MIXER], row[RATE]) for row in frame[frame.chosen].to_dict("records")}
    assert chosen == {("full", 0.003), ("linear", 0.001)}


def test_every_run_is_chosen_where_nothing_was_tuned(tmp_path):
    assert hybridlab.open(written(tmp_path, [example(seed=0), example(seed=1)])).frame().chosen.all()


def test_an_archive_is_a_sweep_without_folders(tmp_path):
    records = [example(seed=0), example(seed=1)]
    path = archive.pack(records, tmp_path / "demo.records.jsonl.xz")
    sweep = hybridlab.open(path)
    assert [(run.record, run.folder) for run in sweep.runs] == [(record, None) for record in records]


def test_without_pandas_the_error_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(hybridlab.ConfigError, match=r"^pandas is not installed; pip install 'hybridlab\[frame\]'$"):
        hybridlab.open(written(tmp_path, [example(), example(seed=1)])).frame()
