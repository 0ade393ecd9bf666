"""Runs that share a process do not affect one another."""

import os
import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from hybridlab.training.isolation import isolated
from tests.records.reading import read_all
from tests.training.test_resume import numbers

MESSY = [
    "seed=7",
    "stack.groups.early.mixer=mamba2",
    "mixers.mamba2.head_width=16",
    "trainer.deterministic=true",
    "trainer.max_steps=3",
    "compile=false",
]


@pytest.mark.slow
def test_a_run_after_another_has_the_numbers_of_a_run_alone_bit_for_bit(hybridlab, tiny, tmp_path):
    common = ["train", *tiny, "trainer.max_steps=6"]
    assert hybridlab(*common, *MESSY, "runs=both").code == 0
    assert hybridlab(*common, "runs=both").code == 0
    alone = [sys.executable, "-m", "hybridlab", *common, f"runs={tmp_path}/alone"]
    subprocess.run(
        alone, check=True, capture_output=True, cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    )
    (b,) = read_all(tmp_path / "alone")
    (b_after_a,) = (record for record in read_all(tmp_path / "both") if record.run_id == b.run_id)
    assert numbers(b_after_a) == numbers(b)
    assert len(numbers(b)) > 50


def test_settings_environment_and_filters_are_restored(monkeypatch):
    monkeypatch.setenv("KEPT", "as it was")
    before = settings()
    with isolated(seed=0):
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(not torch.are_deterministic_algorithms_enabled())
        torch.set_grad_enabled(False)
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        warnings.simplefilter("ignore")
        os.environ["KEPT"] = "changed"
        os.environ["LOCAL_RANK"] = "3"
        assert settings() != before
    assert settings() == before


def test_every_generator_starts_from_the_seed():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    with isolated(seed=3):
        first = draw()
    draw()
    with isolated(seed=3):
        assert draw() == first
    with isolated(seed=4):
        assert not set(draw()) & set(first)


def settings():
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(),
        torch.backends.cudnn.benchmark,
        list(warnings.filters),
        dict(os.environ),
    )
