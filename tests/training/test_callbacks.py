"""Callbacks of the user's run beside ours, and what they monitor is there."""

import pytest
import torch

from hybridlab.errors import ConfigError
from hybridlab.training.trainer_arguments import check_trainer

LIGHTNING = "lightning.pytorch.callbacks"


def node(name, **settings):
    return {"_target_": f"{LIGHTNING}.{name}", **settings}


STOP = node("EarlyStopping", monitor="validation_nll", stopping_threshold=100.0)
REFUSED = {
    "accumulation that changes": (node("GradientAccumulationScheduler", scheduling={0: 2}), "write `trainer.accumulate_grad_batches`"),
    "a batch that is found": (node("BatchSizeFinder"), "write `task.batch`"),
    "a rate that is found": (node("LearningRateFinder"), "sweep over `optimizer.lr`"),
    "an average by epochs": (node("StochasticWeightAveraging", swa_lrs=0.1), "write `lightning.pytorch.callbacks.EMAWeightAveraging`"),
    "pruning": (node("ModelPruning", pruning_fn="l1_unstructured"), "renames the weights"),
    "finetuning": (node("BackboneFinetuning"), "no backbone to unfreeze"),
    "no logger": (node("LearningRateMonitor"), "LearningRateMonitor needs a logger; write `logger=csv`"),
    "an unknown setting": (node("EarlyStopping", monitor="validation_nll", patiense=3), ".patiense=3`: EarlyStopping has no such setting; did you mean `patience`?"),
    "a bad value": (node("EarlyStopping", monitor="validation_nll", mode="best"), "`mode` can be min, max, got best"),
    "a missing setting": (node("EarlyStopping"), ".monitor`: missing, and EarlyStopping has no default for it"),
    "nothing measured": (node("EarlyStopping", monitor="val_loss"), ".monitor=val_loss`: not measured; allowed: train/nll, train_nll, validation/nll, validation_nll"),
    "a near miss": (node("ModelCheckpoint", monitor="validation_nl"), ".monitor=validation_nl`: not measured; did you mean `validation_nll`?"),
    "no callback": ({"_target_": "builtins.dict"}, "._target_=builtins.dict`: must be a lightning.pytorch.callbacks.Callback"),
    "no such class": (node("EarlyStoping"), "._target_=lightning.pytorch.callbacks.EarlyStoping`: cannot be imported"),
    "no target": ({"patience": 3}, "`: no `_target_`"),
    "a word": ("early", "=early`: must be a `_target_` and its settings"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_callback_that_would_change_the_run_or_fail_is_refused(case):
    given, words = REFUSED[case]
    for callbacks, name in (({"mine": given}, "mine"), ([STOP, given], "1")):
        with pytest.raises(ConfigError) as refused:
            check_trainer({"max_steps": 10, "callbacks": callbacks}, logs=False)
        assert str(refused.value).startswith(f"`trainer.callbacks.{name}")
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"callbacks": STOP}, "must be below a name"),
        ({"callbacks": "early"}, "must be a mapping from names"),
        ({"callbacks": {"mine": node("ModelCheckpoint")}, "enable_checkpointing": False}, "enable_checkpointing=false"),
        ({"callbacks": {"mine": node("RichProgressBar")}, "enable_progress_bar": False}, "enable_progress_bar=false"),
        ({"callbacks": {"mine": node("EMAWeightAveraging")}, "strategy": "fsdp"}, "not with fsdp"),
    ],
)
def test_callbacks_that_contradict_other_arguments_are_refused(settings, words):
    with pytest.raises(ConfigError) as refused:
        check_trainer({"max_steps": 10, **settings}, logs=True)
    assert str(refused.value).startswith("`trainer.callbacks")
    assert words in str(refused.value)


def test_callbacks_that_fit_are_allowed_and_null_is_none():
    names = [*("train_nll", "validation_nll", "train/nll", "validation/nll")]
    stops = {str(number): {**STOP, "monitor": name} for number, name in enumerate(names)}
    check_trainer({"max_steps": 10, "callbacks": {**stops, "none": None}}, logs=False)
    check_trainer(
        {"max_steps": 10, "callbacks": {"rate": node("LearningRateMonitor"), "timer": node("Timer")}}, logs=True
    )


def test_early_stopping_ends_a_run_and_says_so(trained):
    _, curve, fitted = trained(callbacks=[STOP])
    assert [row.step for row in curve.measurements if row.split == "validation"] == [5]
    assert fitted.truncated.startswith(
        "ended after 5 of 10 steps (EarlyStopping: Stopping threshold reached: validation_nll"
    )
    last = {**STOP, "monitor": "train/nll"}
    _, curve, fitted = trained(callbacks={"mine": last}, min_steps=6, log_every_n_steps=0, val_check_interval=2)
    assert curve.step == 6
    assert "train/nll" in fitted.truncated


def test_checkpoints_and_averages_of_the_users_are_kept_beside_ours(trained, tmp_path):
    best = node("ModelCheckpoint", monitor="validation/nll", filename="best")
    bar = node("TQDMProgressBar", refresh_rate=0)
    average = node("EMAWeightAveraging", decay=0.5)
    callbacks = {"best": best, "bar": bar, "average": average}
    trainer, curve, fitted = trained(callbacks=callbacks, enable_progress_bar=True, limit_val_batches=1)
    assert len([each for each in trainer.callbacks if "ProgressBar" in type(each).__name__]) == 1
    (run,) = tmp_path.glob("runs/*/*/*")
    assert {"best", "checkpoints"} == {path.name for path in run.iterdir()}
    saved = torch.load(run / "best" / "best.ckpt", weights_only=False)
    weight = fitted.stack.embedding.weight
    assert torch.equal(saved["state_dict"]["stack.embedding.weight"], weight)
    assert not torch.equal(saved["current_model_state"]["stack.embedding.weight"], weight)
    assert fitted.truncated == ""
    assert curve.measurements[-1].split == "validation"
