"""Short training, without the leak gate and the evaluation around it."""

from itertools import count

import pytest

from hybridlab.api import compose
from hybridlab.training.checkpoint import build_checkpoint
from hybridlab.training.curve import Curve
from hybridlab.training.fit import build_trainer, fit
from hybridlab.training.isolation import isolated
from hybridlab.training.spec import prepare
from tests.conftest import CONF


@pytest.fixture
def spec_of(corpus, tmp_path):
    """Prepare a run of ten steps with some arguments of the Trainer, in a folder of its own."""
    given = ["stack=tiny", "trainer=tiny", "task=documents", f"task.path={corpus}", "logger=none"]
    config = compose(given, config_dir=CONF)
    trainer, number = dict(config.trainer), count()

    def specify(**more):
        config.runs = f"{tmp_path}/runs/{next(number)}"  # or a run would go on from the checkpoint of its twin
        config.trainer = {**trainer, **more}
        return prepare(config)

    return specify


@pytest.fixture
def trained(spec_of):
    """Train; return the trainer, the curve and what came of it."""

    def train(*callbacks, **trainer):
        spec = spec_of(**trainer)
        with isolated(0):
            curve = Curve(spec.tokens_per_step)
            built = build_trainer(spec, curve, [build_checkpoint(spec), *callbacks])
            return built, curve, fit(spec, spec.build_stack(), built, curve)

    return train
