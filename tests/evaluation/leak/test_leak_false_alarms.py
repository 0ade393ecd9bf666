"""No false alarm on our own mixers, under all conditions of a run."""

import pytest
import torch

from hybridlab.config import mixer_files
from hybridlab.evaluation.leak import check_plan, check_trained
from hybridlab.stack.model import Stack
from hybridlab.stack.plan import expand

CAUSAL = sorted(set(mixer_files()) - {"linformer", "nystrom"})
CHANNEL = {"_target_": "hybridlab.stack.channel.SwiGLU"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSAL)
def test_our_mixers_pass_as_runs_train_and_evaluate_them(name):
    plan = expand({"width": 64, "groups": {"all": {"mixer": name, "layers": 2}}, "channel": CHANNEL}, {}, mixer_files())
    torch.manual_seed(0)
    stack = Stack(plan, vocabulary=256)
    for precision in ("32-true", "bf16-mixed"):
        lines = check_plan(plan, stack, 200, precision=precision, evaluated_length=400, packed=True)
        assert lines[-1].startswith("whole stack: no leak")
    assert check_trained(plan, stack, 200, precision="bf16-mixed")[0].startswith("trained stack: no leak")
