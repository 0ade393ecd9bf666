"""Checks of the settings that tasks share; each ends in a line that names the key, what came and what is allowed."""

from collections.abc import Collection

from hybridlab.errors import ConfigError, near_miss
from hybridlab.tasks.base import SPLITS


def require_whole(key: str, value: int | None, least: int) -> int:
    """Return a whole number of at least `least`; refuse anything else."""
    if type(value) is not int or value < least:
        raise ConfigError(f"{key}={value}: must be a whole number of at least {least}")
    return value


def require_even(key: str, value: int, why: str) -> None:
    """Refuse an odd number; `why` says what comes in twos."""
    if value % 2:
        raise ConfigError(f"{key}={value}: must be even: {why}")


def require_share(key: str, value: float) -> None:
    """Refuse what is not a number from 0 up to, but not, 1."""
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ConfigError(f"{key}={value}: must be a number of at least 0 and below 1")


def require_choice(key: str, value: str, allowed: Collection[str]) -> None:
    """Refuse a word that is none of those allowed."""
    if value not in allowed:
        raise ConfigError(f"{key}={value}: {near_miss(value, allowed)}")


def check_evaluation(split: str, limit: int | None, batch: int) -> None:
    """Refuse what no task can be evaluated by: a split that there is not, or counts that are none."""
    if split not in SPLITS:
        raise ConfigError(f"split={split}: no such split; {near_miss(split, SPLITS)}")
    require_whole("batch", batch, least=1)
    if limit is not None:
        require_whole("limit", limit, least=1)
