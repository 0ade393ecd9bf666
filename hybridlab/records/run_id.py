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
