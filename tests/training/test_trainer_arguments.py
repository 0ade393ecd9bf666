"""Every argument of Lightning's Trainer is honoured, or refused before anything is written."""

import inspect
from pathlib import Path

import lightning
import pytest
import torch

from hybridlab.errors import ConfigError
from hybridlab.records.run_id import identity_fields
from hybridlab.training.curve import Curve
from hybridlab.training.fit import build_trainer
from hybridlab.training.isolation import isolated
from hybridlab.training.trainer_arguments import ARGUMENTS, check_trainer, deciding, validation_limit

SIGNATURE = {name: each for name, each in inspect.signature(lightning.Trainer).parameters.items() if name != "self"}
# What an argument is refused with, and the words of the refusal.
REFUSED = [
    ("accelerator", ["mps", None, 1], "allowed: auto, cpu, cuda, gpu"),
    ("strategy", ["ddp_spawn", "deepspeed"], "allowed: auto, ddp"),
    ("devices", [0, -2, "two", "0", [], [-1], 1.5, None, True], "must be a whole number of at least 1, -1 or auto"),
    ("num_nodes", [0, -1, None, "2"], "must be a whole number of at least 1"),
    ("precision", ["16-true"], "AdamW's eps is 0 in float16; write `16-mixed` or `bf16-true`"),
    ("precision", ["transformer-engine", "transformer-engine-float16"], "write `bf16-mixed`"),
    ("precision", [True, 13], "allowed: 16-mixed, 32-true"),
    ("precision", ["8-mixed", "bf16-tru"], "did you mean `"),
    ("plugins", [["SLURMEnvironment"], "async"], "`trainer.precision`, `trainer.strategy`"),
    ("sync_batchnorm", [True], "no mixer may normalise over the batch"),
    ("use_distributed_sampler", [False], "the devices share the sequences of each batch"),
    ("benchmark", ["yes", 1], "must be one of true, false"),
    ("deterministic", ["maybe", 1], "must be one of true, false, warn, null"),
    ("inference_mode", [None, "no"], "must be one of true, false"),
    ("min_steps", [-1, 1.5, "3"], "must be a whole number of at least 0"),
    ("min_steps", [11], "must be at most max_steps=10, which ends the run"),
    ("min_epochs", [2, -1], "write `trainer.min_steps`"),
    ("fast_dev_run", [-1, "yes", 0.5], "must be a whole number of at least 0"),
    ("accumulate_grad_batches", [0, -1, None, {0: 2}, 2.0], "must be a whole number of at least 1"),
    ("gradient_clip_val", [-1, -0.5, "1", True], "must be a number of at least 0"),
    ("gradient_clip_algorithm", ["l2", True], "must be norm or value"),
    ("detect_anomaly", [None, 1], "must be one of true, false"),
    ("limit_val_batches", [-1, "all", True], "must be a whole number of at least 0"),
    ("limit_val_batches", [-0.1, 1.5], "must be a number of at least 0 and at most 1"),
    ("val_check_interval", [0, -1, True], "must be a whole number of at least 1"),
    ("val_check_interval", [0.0, 1.5, -0.5], "must be a number above 0 and at most 1"),
    ("check_val_every_n_epoch", [2, 0, -1], "write `trainer.val_check_interval`"),
    ("num_sanity_val_steps", [-2, 0.5], "must be a whole number of at least -1"),
    ("limit_test_batches", [1, 0, 0.5, -1], "write `evaluation.limit`"),
    ("limit_predict_batches", [1, 0, 0.5], "write `evaluation.limit`"),
    ("reload_dataloaders_every_n_epochs", [1], "the whole run is one epoch"),
    ("logger", [True, False, "csv"], "write `logger=csv`"),
    ("enable_autolog_hparams", [False], "`logger=none` for no logger"),
    ("log_every_n_steps", [-1, 0.5, True], "must be a whole number of at least 0"),
    ("enable_checkpointing", ["no", 0], "must be one of true, false"),
    ("enable_progress_bar", ["no", 0], "must be one of true, false"),
    ("enable_model_summary", ["no", 0], "must be one of true, false"),
    ("profiler", ["xla", "smple", 3], "simple"),
    ("default_root_dir", ["here"], "write `runs=DIR`"),
    ("model_registry", ["mine"], "a run keeps its weights in its own folder"),
    ("barebones", [True], "leaves out the curve and the validation"),
]
CUT_SHORT = [
    ("max_time", "00:00:01:00", "write budget.seconds=N"),
    ("max_epochs", 0, "the whole run is one epoch"),
    ("limit_train_batches", 2, "write trainer.max_steps=N for a shorter run of 10 steps"),
    ("limit_train_batches", 0, "write trainer.max_steps=N for a shorter run of 10 steps"),
    ("overfit_batches", 1, "would train on the same batches again"),
    ("max_steps", -1, "must be a whole number of at least 1"),
]
CHECKED_ELSEWHERE = {"callbacks"}  # test_callbacks.py


def steps(curve, split):
    return [row.step for row in curve.measurements if row.split == split]


def equal(one, other):
    """Return whether two runs end with the same weights."""
    return all(map(torch.equal, one.stack.state_dict().values(), other.stack.state_dict().values()))


def test_the_table_is_the_signature_of_the_installed_lightning():
    assert set(ARGUMENTS) == set(SIGNATURE)
    assert CHECKED_ELSEWHERE | {name for name, *_ in REFUSED} | {name for name, *_ in CUT_SHORT} == set(SIGNATURE)


@pytest.mark.parametrize("name", SIGNATURE)
def test_what_lightning_does_by_default_is_allowed(name):
    if name != "max_steps":  # -1 by default: a run without an end
        check_trainer({"max_steps": 10, name: SIGNATURE[name].default}, logs=False)


@pytest.mark.parametrize(("name", "values", "words"), REFUSED, ids=[f"{name}-{words}" for name, _, words in REFUSED])
def test_what_a_run_would_not_do_is_refused(name, values, words):
    for value in values:
        with pytest.raises(ConfigError) as refused:
            check_trainer({"max_steps": 10, name: value}, logs=True)
        assert str(refused.value).startswith(f"`trainer.{name}=")
        assert words in str(refused.value)


@pytest.mark.parametrize(("name", "value", "words"), CUT_SHORT)
def test_what_would_cut_a_run_short_is_refused(spec_of, name, value, words):
    with pytest.raises(ConfigError) as refused:
        spec_of(**{name: value})
    assert str(refused.value).startswith(f"`trainer.{name}={value}`: ")
    assert words in str(refused.value)


def test_unknown_arguments_and_trainers_are_refused(spec_of, tmp_path):
    with pytest.raises(
        ConfigError, match=r"^`trainer.max_step=3`: Trainer has no such setting; did you mean `max_steps`"
    ):
        spec_of(max_step=3)
    with pytest.raises(ConfigError, match=r"^`trainer.gradient_clip_algorithm=value`: nothing is clipped"):
        spec_of(gradient_clip_val=None, gradient_clip_algorithm="value")
    refused = {
        "`trainer._target_=builtins.dict`: must be a lightning.pytorch.Trainer": {"_target_": "builtins.dict"},
        "`trainer.precision=16-mixed`: not on cpu; write `bf16-mixed`": {"precision": "16-mixed"},
        "`trainer.num_nodes=2`: start the command on every node by": {"num_nodes": 2},
        "`trainer`: `devices` selected with `CPUAccelerator` should be an int > 0": {"devices": -1},
        "`trainer`: ": {"val_check_interval": "soon"},
    }
    for words, given in refused.items():
        spec = spec_of(**given)
        with isolated(0), pytest.raises(ConfigError) as raised:
            build_trainer(spec, Curve(1), [])
        assert str(raised.value).startswith(words)
    assert not (tmp_path / "runs").exists()


def test_arguments_that_change_no_result_make_no_other_run():
    def identity(**trainer):
        return deciding(identity_fields({"trainer": {"gradient_clip_val": 1.0, **trainer}})["trainer"])

    plain = identity()
    same = {
        "precision": ["32-true", 32, "32", None],
        "accumulate_grad_batches": [1],
        "limit_val_batches": [None, 1.0],
        "val_check_interval": [3, 1.0],
        "min_steps": [5],
        "deterministic": [False, None],
        "gradient_clip_val": [1],
        "gradient_clip_algorithm": ["norm", None],
        "enable_checkpointing": [False],
        "profiler": ["simple"],
        "log_every_n_steps": [0],
        "max_epochs": [-1, None],
        "num_sanity_val_steps": [2],
        "detect_anomaly": [True],
    }
    others = {"precision": "bf16-true", "accumulate_grad_batches": 2, "limit_val_batches": 1, "gradient_clip_val": None}
    for name, values in same.items():
        for value in values:
            assert identity(**{name: value}) == plain, (name, value)
    for name, value in others.items():
        assert identity(**{name: value}) != plain, name


def test_how_often_a_run_validates_decides_what_its_callbacks_see():
    one, other = ({"val_check_interval": every, "callbacks": {"mine": {"_target_": "A"}}} for every in (1, 2))
    assert deciding(one) != deciding(other)
    assert deciding({**one, "callbacks": {}}) == deciding({**other, "callbacks": None}) == {"precision": "32-true"}


@pytest.mark.parametrize(
    ("limit", "batches", "read"), [(0.01, 5, 1), (0.5, 5, 2), (1.0, 5, 1.0), (0, 5, 0), (0.0, 5, 0.0), (9, 5, 9)]
)
def test_a_share_of_the_validation_batches_is_at_least_one(limit, batches, read):
    found = validation_limit(limit, batches)
    assert (type(found), found) == (type(read), read)


def test_validation_and_logging_are_when_they_are_asked_for(trained):
    class Seen(lightning.Callback):
        batches = 0

        def on_validation_batch_end(self, *_):
            self.batches += 1

    for interval, expected in ((3, [3, 6, 9, 10]), (1000, [10])):
        _, curve, fitted = trained(val_check_interval=interval, log_every_n_steps=0, limit_val_batches=0.001)
        assert (steps(curve, "validation"), steps(curve, "train")) == (expected, [10])
    seen = Seen()
    _, curve, other = trained(
        seen, val_check_interval=1.0, log_every_n_steps=1000, limit_val_batches=2, num_sanity_val_steps=-1
    )
    assert (steps(curve, "validation"), steps(curve, "train"), seen.batches) == ([10], [10], 4)
    _, curve, last = trained(
        limit_val_batches=0, log_every_n_steps=3, max_epochs=-1, min_epochs=1, limit_train_batches=10
    )
    assert (steps(curve, "validation"), steps(curve, "train")) == ([], [3, 6, 9, 10])
    assert equal(fitted, other)
    assert equal(fitted, last)


def test_modes_of_pytorch_are_on_while_a_run_trains_and_off_after_it(trained, tmp_path, capfd):
    class Modes(lightning.Callback):
        def on_train_batch_start(self, *_):
            self.found = torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled()

        def on_validation_batch_start(self, *_):
            self.inference = torch.is_inference_mode_enabled()

    modes, about = Modes(), {"deterministic": True, "detect_anomaly": True, "inference_mode": False}
    shown = {"enable_model_summary": True, "profiler": "simple", "enable_checkpointing": False}
    _, _, fitted = trained(modes, **about, **shown, limit_val_batches=1)
    assert (modes.found, modes.inference) == ((True, True), False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert "Total params" in capfd.readouterr().out
    written = {path.name: path for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert list(written) == ["fit-profile.txt"]
    assert "run_training_batch" in written["fit-profile.txt"].read_text()
    plain, _, other = trained(limit_val_batches=1)
    assert equal(fitted, other)
    assert [path.suffix for path in (tmp_path / "runs").rglob("*") if path.is_file()].count(".ckpt") == 1
    assert plain.num_devices == 1


def test_gradients_are_clipped_as_asked(trained):
    norms, values, none, zero = (
        trained(limit_val_batches=0, max_steps=3, **given)[2]
        for given in (
            {"gradient_clip_val": 1e-6},
            {"gradient_clip_val": 1e-6, "gradient_clip_algorithm": "value"},
            {"gradient_clip_val": None},
            {"gradient_clip_val": 0},
        )
    )
    assert equal(none, zero)
    assert not equal(norms, none)
    assert not equal(norms, values)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_a_run_in_other_weights_leaves_every_number(hybridlab, tiny, precision, dtype):
    from hybridlab.api import open as open_run

    outcome = hybridlab("train", *tiny, "logger=none", "trainer.max_steps=2", f"trainer.precision={precision}")
    assert (outcome.code, outcome.err) == (0, "")
    (run,) = open_run("runs").runs
    assert (run.record.status, run.record.missing) == ("finished", {})
    assert {"milliseconds", "ngram_bits_per_byte", "knockout"} <= set(run.record.measures)
    assert Path(run.folder, "weights.safetensors").stat().st_size > 0
    assert {each.dtype for each in run.stack().parameters()} == {dtype}
