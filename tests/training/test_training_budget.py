"""A run ends when its budget of steps, FLOPs or seconds is spent; one that ends before says so."""

import math
import time
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from hybridlab.config import compose
from hybridlab.errors import ConfigError
from hybridlab.stack.measure import forward_flops
from hybridlab.training import clock as clocks
from hybridlab.training.clock import TrainingClock
from hybridlab.training.deadline import Deadline
from hybridlab.training.machine import WORKERS, device_name, devices_of, machine
from hybridlab.training.optimiser import AdamWCosine
from hybridlab.training.spec import prepare
from tests.conftest import CONF
from tests.records.reading import read_all

CPU = torch.device("cpu")


@pytest.fixture
def spec_of(corpus):
    """Prepare the tiny run with some overrides."""

    def of(*overrides):
        tiny = ["stack=tiny", "trainer=tiny", "task=documents", f"task.path={corpus}"]
        return prepare(compose([*tiny, *overrides], config_dir=CONF))

    return of


def test_two_spellings_of_a_number_of_steps_are_one_run(spec_of):
    plain = spec_of("trainer.max_steps=7")
    for overrides in (["budget.steps=7"], ["budget.steps=7", "trainer.max_steps=7"], ["+budget={steps:7}"]):
        spec = spec_of(*overrides)
        assert (spec.run_id, spec.steps, spec.config) == (plain.run_id, 7, plain.config)
    assert spec_of("budget.steps=null").run_id == spec_of().run_id
    assert spec_of("budget.steps=10").run_id == spec_of().run_id  # that of the preset


def test_a_prepared_run_prepares_again_to_the_same_run(spec_of):
    for budget in ("budget.steps=7", "budget.seconds=7", "budget.flops=1e9"):
        spec = spec_of(budget)
        again = prepare(OmegaConf.create(spec.declared))
        assert (again.run_id, again.budget, again.config) == (spec.run_id, spec.budget, spec.config)


def test_flops_become_steps_and_stay_what_was_declared(spec_of):
    spec = spec_of("budget.flops=1e9", "trainer.accumulate_grad_batches=2")
    stack = spec.build_stack().to("meta")
    forward = sum(forward_flops(layer, 32, 32) for layer in stack.layers) + forward_flops(stack.head, 32, 32)
    assert spec.steps == math.floor(1e9 / (3 * 2 * 2 * forward))
    assert spec.budget.declared == {"flops": 1e9}
    assert spec.config["budget"] == {"flops": 1e9}
    assert "max_steps" not in spec.config["trainer"]
    larger = spec_of("budget.flops=1e9", "trainer.accumulate_grad_batches=2", "stack.width=64")
    assert larger.steps < spec.steps
    assert larger.config["budget"] == spec.config["budget"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["budget.secs=3"], "`budget.secs=3`: no such budget; did you mean `seconds`?"),
        (["budget.steps=3", "budget.seconds=2"], "`budget.steps=3 and budget.seconds=2`: a run has one budget"),
        (["budget=3"], "`budget=3`: must be one of budget.steps, budget.seconds and budget.flops"),
        (["budget.steps=2.5"], "`budget.steps=2.5`: must be a whole number of at least 1"),
        (["budget.steps=0"], "`budget.steps=0`: must be a whole number of at least 1"),
        (["budget.seconds=0"], "`budget.seconds=0`: must be a number above 0"),
        (["budget.seconds=true"], "`budget.seconds=true`: must be a number above 0"),
        (["budget.seconds=.inf"], "`budget.seconds=.inf`: must be a number above 0"),
        (["budget.flops=-1"], "`budget.flops=-1`: must be a number above 0"),
        (["budget.flops=1000"], "`budget.flops=1000`: must be at least one training step, which takes "),
        (["budget.steps=3", "trainer.max_steps=4"], "`budget.steps=3`: with trainer.max_steps=4 there are two"),
        (["budget.seconds=3", "trainer.max_steps=10"], "`budget.seconds=3`: with trainer.max_steps=10 there are two"),
        (["trainer.max_steps=null"], "`trainer.max_steps=null`: must be a whole number of at least 1"),
        (["trainer.max_epochs=0"], "`trainer.max_epochs=0`: the whole run is one epoch; must be 1, or -1: no limit"),
        (["trainer.limit_train_batches=0"], "`trainer.limit_train_batches=0`: would cut the run short; write trainer"),
        (["trainer.limit_train_batches=9"], "`trainer.limit_train_batches=9`: would cut the run short; write trainer"),
        (["trainer.limit_train_batches=0.5"], "`trainer.limit_train_batches=0.5`: would cut the run short"),
        (["+trainer.max_time=00:00:00:01"], "`trainer.max_time=00:00:00:01`: would cut the run short; write budget"),
        (["trainer.overfit_batches=2"], "`trainer.overfit_batches=2`: would train on the same batches again"),
        (["trainer.accumulate_grad_batches=0"], "`trainer.accumulate_grad_batches=0`: must be a whole number"),
        (["budget.seconds=3", "trainer.min_steps=9"], "`trainer.min_steps=9`: would go on beyond budget.seconds=3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_no_budget_or_would_cut_one_is_refused(spec_of, overrides, message):
    with pytest.raises(ConfigError) as refused:
        spec_of(*overrides)
    assert str(refused.value).startswith(message)


def test_limits_that_cut_nothing_are_allowed(spec_of):
    for allowed in ("trainer.limit_train_batches=10", "trainer.limit_train_batches=1.0", "trainer.max_epochs=-1"):
        assert spec_of(allowed).steps == 10


class StopAtFive(Callback):
    def on_train_batch_end(self, trainer, *arguments):
        trainer.should_stop = trainer.global_step == 5


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        ("{_target_: tests.training.test_training_budget.StopAtFive}", "a callback set `trainer.should_stop`"),
        (
            "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: validation_nll, stopping_threshold: 50.0}",
            "EarlyStopping: Stopping threshold reached: validation_nll = ",
        ),
    ],
    ids=["should_stop", "EarlyStopping"],
)
def test_a_run_that_a_callback_ends_is_truncated(hybridlab, tiny, tmp_path, callback, reason):
    command = ["train", *tiny, "logger=none", "evaluation=none", f"+trainer.callbacks.mine={callback}"]
    assert hybridlab(*command).code == 0
    (record,) = read_all(tmp_path / "runs")
    assert record.status == "truncated"
    assert record.reason.startswith(f"ended after 5 of 10 steps ({reason}")
    assert record.training["budget"] == {"steps": 10}
    assert record.training["steps"] == 5
    assert any(row.name == "test/nll" for row in record.measurements)
    assert "truncated already" in hybridlab(*command).out


def test_a_run_of_seconds_ends_by_the_clock(hybridlab, tiny, tmp_path, monkeypatch):
    ticking(monkeypatch, 0.25)
    more = ["budget.seconds=4", "trainer.val_check_interval=0.25", "checkpoint.every_n_train_steps=1"]
    command = ["train", *tiny, "logger=none", "evaluation=none", *more]
    assert hybridlab(*command).code == 0
    (record,) = read_all(tmp_path / "runs")
    assert record.status == "finished"
    assert record.training["budget"] == {"seconds": 4}
    assert 4 <= record.training["seconds"] < 6
    assert record.config["budget"] == {"seconds": 4}
    assert record.identity["machine"]["compile"] is False
    validated = [row.step for row in record.measurements if row.split == "validation"]
    assert len(validated) == 4
    assert validated[-1] == record.training["steps"]
    assert "finished already" in hybridlab(*command).out


def test_a_run_of_seconds_goes_on_from_the_seconds_of_its_checkpoint(hybridlab, tiny, tmp_path, monkeypatch):
    def fails(*arguments, **settings):
        raise OSError("unplugged")

    ticking(monkeypatch, 0.25)
    command = ["train", *tiny, "logger=none", "evaluation=none", "budget.seconds=4", "checkpoint.every_n_train_steps=1"]
    with monkeypatch.context() as patched:
        patched.setattr(Deadline, "on_validation_start", fails)
        assert hybridlab(*command).code == 1
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=False)
    before = saved["callbacks"]["Curve"]["seconds"]
    assert 2 <= before < 4
    rate_at, rate = AdamWCosine(lr=4e-3).rate_at, saved["optimizer_states"][0]["param_groups"][0]["lr"] / 4e-3
    assert rate_at(before / 4) <= rate <= rate_at((before - 1.5) / 4)  # set in the middle of a step
    assert hybridlab(*command).code == 0
    (record,) = read_all(tmp_path / "runs")
    assert record.status == "finished"
    assert 4 <= record.training["seconds"] < 6
    assert saved["global_step"] < record.training["steps"] < 2 * saved["global_step"]


def ticking(monkeypatch, seconds):
    """Let the training clock read a time that goes on by so many seconds whenever it is read."""
    now = [0.0]

    def perf_counter():
        now[0] += seconds
        return now[0]

    monkeypatch.setattr(clocks, "time", SimpleNamespace(perf_counter=perf_counter))


def test_the_clock_counts_neither_the_first_step_nor_compilation_nor_pauses(monkeypatch):
    now, compiled = [100.0], [3]
    monkeypatch.setattr(clocks, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(clocks, "compilations", lambda: compiled[0])
    clock = TrainingClock()

    def step(seconds, graphs=0):
        clock.start()
        now[0] += seconds
        compiled[0] += graphs
        before = clock.now()
        clock.step_ended(CPU)
        assert clock.now() == before

    step(50, graphs=1)
    assert (clock.seconds, clock.steps, clock.steps_per_second) == (0, 0, 1 / 50)
    step(2)
    step(2)
    step(30, graphs=1)
    step(2)
    assert (clock.seconds, clock.steps, clock.steps_per_second) == (6, 3, 0.5)
    now[0] += 1  # a checkpoint is about to be written
    clock.stop(CPU)
    now[0] += 1000
    step(2)
    assert (clock.seconds, clock.steps) == (9, 4)
    resumed = TrainingClock()
    resumed.load_state_dict(clock.state_dict())
    resumed.start()
    now[0] += 40
    resumed.step_ended(CPU)
    assert (resumed.seconds, resumed.steps) == (9, 4)


def test_compilations_are_counted():
    before = clocks.compilations()
    torch.compile(lambda x: x + before, backend="eager")(torch.ones(2))
    assert clocks.compilations() == before + 1


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
def test_the_rate_by_share_is_the_rate_by_steps_of_a_long_run(warmup):
    settings = AdamWCosine(lr=1.0, warmup=warmup)
    for step in range(100, 100_000, 997):
        assert settings.rate_at(step / 100_000) == pytest.approx(settings.rate(step, 100_000), abs=3e-4)
    assert settings.rate_at(1.0) == pytest.approx(0.1 if warmup < 1 else 1.0)


def test_devices_agree_on_what_is_spent():
    strategy = SimpleNamespace(root_device=CPU, reduce=lambda value, reduce_op: value + 1)
    trainer = SimpleNamespace(world_size=2, strategy=strategy, val_check_interval=1.0, val_check_batch=3)
    clock = TrainingClock()
    clock.load_state_dict({"seconds": 4.0, "steps": 3})
    deadline = Deadline(10, clock)
    assert deadline.share() == 0
    deadline.on_train_start(trainer, None)
    assert deadline.share() == 0.5


def test_a_machine_is_its_devices_kernels_compilation_and_workers(monkeypatch):
    monkeypatch.delenv(WORKERS, raising=False)
    config = {"trainer": {"accelerator": "cpu", "devices": 2}, "compile": True}
    found = machine(config)
    assert found["device"].startswith(f"2 x {device_name('cpu', 1)}, ")
    assert (found["kernels"], found["compile"], found["workers"]) == (False, True, 1)
    monkeypatch.setenv(WORKERS, "4")
    assert machine(config)["workers"] == 4
    assert devices_of({"accelerator": "gpu", "devices": [0, 2], "num_nodes": 2}) == ("cuda", 4)
    assert devices_of({"accelerator": "cpu", "devices": "auto"}) == ("cpu", 1)


def test_what_training_was_stands_in_the_record(hybridlab, tiny, tmp_path, spec_of):
    started = time.perf_counter()
    assert hybridlab("train", *tiny, "logger=none", "evaluation=none", "budget.steps=3").code == 0
    (record,) = read_all(tmp_path / "runs")
    corpus = spec_of().task.training_tokens
    assert record.training == {
        "budget": {"steps": 3},
        "steps": 3,
        "tokens": 3 * 64,
        "epochs": 3 * 64 / corpus,
        "seconds": record.training["seconds"],
        "device": device_name("cpu", 1),
    }
    assert 0 < record.training["seconds"] < time.perf_counter() - started
