"""The name of a run's directory: a hash of what decides its results."""

import hashlib
from typing import Any

from hybridlab.records.json_values import to_text
from hybridlab.records.record import SCHEMA

# Dotted paths of the resolved config that change no result: where things are written, how often,
# what is shown while it runs, and on which device. Changing one of them must find the finished run
# again.
CHANGES_NO_RESULT = frozenset(
    {
        "name",
        "runs",
        "logger",
        "checkpoint",
        "hydra",
        "retries",
        "trainer.accelerator",
        "trainer.devices",
        "trainer.num_nodes",
        "trainer.strategy",
        "trainer.default_root_dir",
        "trainer.enable_progress_bar",
        "trainer.log_every_n_steps",
        "trainer.logger",
    }
)


def run_id(config: dict[str, Any]) -> str:
    """Return 12 hexadecimal digits: equal for equal results, whatever the order of the keys."""
    identity = {"schema": SCHEMA, "config": identity_fields(config)}
    return hashlib.sha256(to_text(identity, sort_keys=True).encode()).hexdigest()[:12]


def identity_fields(config: dict[str, Any], under: str = "") -> dict[str, Any]:
    """Return the part of a resolved config that decides the results."""
    return {
        key: identity_fields(value, f"{under}{key}.") if isinstance(value, dict) else value
        for key, value in config.items()
        if f"{under}{key}" not in CHANGES_NO_RESULT
    }
