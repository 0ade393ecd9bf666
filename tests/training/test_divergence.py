"""A run in which anything is not a finite number has diverged, and says when and where it began."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from hybridlab.training.divergence import MOST_PENDING, DivergedError, Watch, all_finite, bad_weight
from tests.records.reading import read_all
from tests.training.planted import plant
from tests.training.test_accumulation import train

STRATEGY = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda value, reduce_op: value)
NAN_OUTPUT = "the output of `layers.1.mixer` (planted, group middle) is nan"
NAN_GRADIENT = "the gradient of `layers.1.mixer.out.weight` is nan"


@pytest.fixture
def planted(tiny, tmp_path):
    """Overrides for a stack with a planted mixer in the middle, measured by the NLL alone."""
    (tmp_path / "mine" / "mixers").mkdir(parents=True)
    (tmp_path / "mine" / "mixers" / "planted.yaml").write_text("_target_: tests.training.planted.Planted\n")
    middle = ["~stack.groups.middle.mixer", "+stack.groups.middle.mixer=planted"]
    short = ["trainer.max_steps=4", "logger=none", "evaluation=none"]
    return ["train", *tiny, "hydra.searchpath=[file://mine]", *middle, *short]


@pytest.mark.parametrize(
    ("when", "reason", "rows"),
    [
        ({"forward_step": 3}, f"the training loss is nan at step 3: {NAN_OUTPUT}", [("train", 2), ("validation", 2)]),
        (
            {"backward_step": 3},
            f"the norm of the gradient is nan at step 3: {NAN_GRADIENT}",
            [("train", 2), ("validation", 2)],
        ),
        (
            {"backward_step": 4},
            f"the norm of the gradient is nan at step 4: {NAN_GRADIENT}",
            [("train", 2), ("validation", 2)],
        ),
        (
            {"lengths": (32,)},
            "the validation loss is nan at step 2: the output of `layers.1.mixer` (planted, group middle) is inf",
            [("train", 2)],
        ),
    ],
    ids=["forward", "backward", "last backward", "validation"],
)
def test_what_is_not_finite_ends_the_run(hybridlab, planted, tmp_path, monkeypatch, when, reason, rows):
    plant(monkeypatch, **when)
    outcome = hybridlab(*planted)
    assert outcome.code == 1
    assert reason in outcome.err
    (record,) = read_all(tmp_path / "runs")
    assert (record.status, record.reason) == ("diverged", f"DivergedError: {reason}")
    assert [(row.split, row.step) for row in record.measurements] == rows
    assert record.training["budget"] == {"steps": 4}
    assert record.training["steps"] == (4 if rows[-1] == ("validation", 2) else 2)  # when it was noticed
    again = hybridlab(*planted)
    assert (again.code, "diverged before" in again.err) == (1, True)


def test_a_checkpoint_that_is_not_finite_is_not_written(hybridlab, planted, tmp_path, monkeypatch):
    plant(monkeypatch, backward_step=4)
    more = ["trainer.log_every_n_steps=20", "trainer.limit_val_batches=0", "checkpoint.every_n_train_steps=2"]
    outcome = hybridlab(*planted, *more)
    assert outcome.code == 1
    assert f"the norm of the gradient is nan at step 4: {NAN_GRADIENT}" in outcome.err
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert checkpoint.name == "epoch=0-step=2.ckpt"
    assert bad_weight(torch.nn.ParameterDict(clean(torch.load(checkpoint, weights_only=False)["state_dict"]))) is None


def clean(weights):
    return {name.replace(".", "_"): value for name, value in weights.items()}


def test_a_divergence_that_does_not_come_back_is_said(hybridlab, planted, tmp_path, monkeypatch):
    from hybridlab.training.curve import Curve

    def fails(curve, trainer, module, *arguments):
        module.watch.see(2, training_loss=torch.tensor(torch.nan))
        module.watch.check(trainer.strategy)

    with monkeypatch.context() as patched:
        patched.setattr(Curve, "on_validation_start", fails)
        assert hybridlab(*planted).code == 1
    (record,) = read_all(tmp_path / "runs")
    assert "the training loss is nan at step 2; repeated from the start, it did not come back" in record.reason


def test_a_checkpoint_whose_weights_are_not_finite_is_refused(hybridlab, planted, tmp_path, monkeypatch):
    from hybridlab.training.module import StackModule

    more = ["trainer.max_steps=2", "checkpoint.every_n_train_steps=1"]
    with monkeypatch.context() as patched:
        patched.setattr(StackModule, "check", lambda module: None)
        patched.setattr(StackModule, "validation_step", lambda *arguments: 1 / 0)
        assert hybridlab(*planted, *more, "trainer.val_check_interval=1").code == 1
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=False)
    saved["state_dict"]["stack.norm.weight"][3] = torch.nan
    torch.save(saved, checkpoint)
    assert hybridlab(*planted, *more, "trainer.val_check_interval=1").code == 1
    (record,) = read_all(tmp_path / "runs")
    assert record.reason == "DivergedError: the weights are not finite after step 1"


def test_a_test_loss_that_is_no_number_is_no_result(hybridlab, planted, tmp_path, monkeypatch):
    from hybridlab.training import run

    plant(monkeypatch, lengths=(48,))
    monkeypatch.setattr(run, "check_trained", lambda *arguments, **settings: [])  # text may do what no probe does
    outcome = hybridlab(*planted, "evaluation.window=48", "evaluation.stride=48")
    assert outcome.code == 1
    (record,) = read_all(tmp_path / "runs")
    assert record.status == "diverged"
    assert "the output of `layers.1.mixer` (planted, group middle) is inf" in record.reason
    assert [row.step for row in record.measurements if row.split == "validation"] == [2, 4]


def test_weights_that_the_last_step_breaks_are_found(hybridlab, planted, tmp_path, monkeypatch):
    from hybridlab.training.module import StackModule

    step_made = StackModule.optimizer_step

    def optimizer_step(module, *arguments, **settings):
        step_made(module, *arguments, **settings)
        if module.trainer.global_step == 3:  # the fourth, which is counted afterwards
            module.stack.norm.weight.data[5] = torch.inf

    monkeypatch.setattr(StackModule, "optimizer_step", optimizer_step)
    assert hybridlab(*planted, "trainer.limit_val_batches=0").code == 1
    (record,) = read_all(tmp_path / "runs")
    assert record.status == "diverged"
    expected = "the weights are not finite after step 4: the weight `norm.weight` is inf after step 4"
    assert record.reason == f"DivergedError: {expected}"


def test_the_first_of_many_bad_steps_is_kept_without_waiting():
    watch = Watch()
    for step in range(1, 2 * MOST_PENDING):
        watch.see(step, training_loss=torch.tensor(torch.nan if step >= 7 else 1.0), gradient_norm=torch.tensor(2.0))
    assert len(watch._pending) <= MOST_PENDING + 2
    with pytest.raises(DivergedError, match="the training loss is nan at step 7") as caught:
        watch.check(STRATEGY)
    assert caught.value.step == 7


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("broken", [False, True])
def test_only_gradients_that_overflow_at_every_loss_scale_have_diverged(tmp_path, broken):
    def half(stack):
        if broken:
            stack.norm.weight.register_hook(lambda gradient: gradient * torch.nan)
        return stack

    scaler = torch.amp.GradScaler("cpu", init_scale=4.0 if broken else 2.0**60)  # the latter overflows at first
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    if broken:
        with pytest.raises(DivergedError, match="overflow at every loss scale down to 1 at step 4"):
            train(tmp_path, 4, 1, steps=6, prepared=half, plugins=plugins)
    else:
        rows, _ = train(tmp_path, 4, 1, steps=6, prepared=half, plugins=plugins)
        assert len(rows) == 7
        assert scaler.get_scale() < 2.0**60


def test_large_values_are_finite():
    assert all_finite([torch.full((4,), 3e38), torch.tensor(1e308, dtype=torch.float64), torch.zeros(0)])
    assert not all_finite([torch.zeros(2), torch.tensor([0.0, torch.nan])])
    assert not all_finite([torch.tensor([-torch.inf], dtype=torch.bfloat16)])
