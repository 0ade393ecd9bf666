"""The name of a run's directory: a hash of what decides its results."""

import hashlib
from typing import Any

from hybridlab.records.json_values import to_text

# Dotted paths of the resolved config that change no result: where things are written, how often,
# what is shown while it runs, on which device, and what is measured afterwards. Changing one of
# them must find the finished run again.
CHANGES_NO_RESULT = frozenset(
    {
        "name",
        "runs",
        "logger",
        "checkpoint",
        "evaluation",
        "hydra",
        "retries",
        # Lightning's: other devices and kernels round differently, and no more than that; the rest
        # is about what is shown and kept, or has one value that a run may have.
        "trainer.accelerator",
        "trainer.barebones",
        "trainer.check_val_every_n_epoch",
        "trainer.default_root_dir",
        "trainer.detect_anomaly",
        "trainer.devices",
        "trainer.enable_autolog_hparams",
        "trainer.enable_checkpointing",
        "trainer.enable_model_summary",
        "trainer.enable_progress_bar",
        "trainer.fast_dev_run",
        "trainer.inference_mode",
        "trainer.limit_predict_batches",
        "trainer.limit_test_batches",
        "trainer.limit_train_batches",
        "trainer.log_every_n_steps",
        "trainer.logger",
        "trainer.max_epochs",
        "trainer.max_time",
        "trainer.model_registry",
        "trainer.num_nodes",
        "trainer.num_sanity_val_steps",
        "trainer.overfit_batches",
        "trainer.plugins",
        "trainer.profiler",
        "trainer.reload_dataloaders_every_n_epochs",
        "trainer.strategy",
        "trainer.sync_batchnorm",
        "trainer.use_distributed_sampler",
    }
)


def identity_digest(identity: dict[str, Any]) -> str:
    """Return the SHA-256 of what decides a run's results, in hexadecimal digits.

    Equal for equal results, whatever the order of the keys.
    """
    return hashlib.sha256(to_text(identity, sort_keys=True).encode()).hexdigest()


def run_id(digest: str) -> str:
    """Return the name of a run: 12 hexadecimal digits of its `identity_digest`."""
    return digest[:12]


def identity_fields(config: dict[str, Any], under: str = "") -> dict[str, Any]:
    """Return the part of a resolved config that decides the results."""
    return {
        key: identity_fields(value, f"{under}{key}.") if isinstance(value, dict) else value
        for key, value in config.items()
        if f"{under}{key}" not in CHANGES_NO_RESULT
    }
