"""Checks of single settings: one wording, one exception.

Each takes settings as keywords, so that the message names them, and raises
`ConfigError("<key>=<value>: must be ...")`; whoever knows the configuration path puts it in front
(`hybridlab.build`).

>>> whole(heads=0)
Traceback (most recent call last):
hybridlab.errors.ConfigError: heads=0: must be a whole number of at least 1
"""

import math
from collections.abc import Collection
from typing import Any

from hybridlab.errors import ConfigError, near_miss


def whole(*, least: int = 1, most: int | None = None, null: str = "", **settings: Any) -> None:
    """Require whole numbers from `least` to `most`; `null`, where it is given, says what null
    means, and allows it.
    """
    for name, value in settings.items():
        bad = type(value) is not int or value < least or (most is not None and value > most)
        if bad and not (null and value is None):
            allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise ConfigError(f"{name}={spelt(value)}: must be a whole number {allowed}{_or_null(null)}")


def positive(*, null: str = "", **settings: Any) -> None:
    """Require finite numbers above 0; `null`, where it is given, says what null means, and allows
    it.
    """
    for name, value in settings.items():
        if not (_is_number(value) and value > 0) and not (null and value is None):
            raise ConfigError(f"{name}={spelt(value)}: must be a number above 0{_or_null(null)}")


def number(*, least: int | float, most: int | float = math.inf, below: bool = False, **settings: Any) -> None:
    """Require finite numbers from `least` to `most`; with `below`, `most` itself is refused."""
    for name, value in settings.items():
        if not (_is_number(value) and least <= value <= most) or (below and value == most):
            up_to = "" if most == math.inf else f" and below {most}" if below else f" and at most {most}"
            raise ConfigError(f"{name}={spelt(value)}: must be a number of at least {least}{up_to}")


def share(*, below: bool = False, **settings: Any) -> None:
    """Require numbers above 0 and at most 1; with `below`, 1 itself is refused."""
    for name, value in settings.items():
        if not (_is_number(value) and 0 < value <= 1) or (below and value == 1):
            raise ConfigError(
                f"{name}={spelt(value)}: must be a number above 0 and {'below' if below else 'at most'} 1"
            )


def even(*, why: str, **settings: int) -> None:
    """Require even numbers; `why` says what comes in pairs."""
    for name, value in settings.items():
        if value % 2:
            raise ConfigError(f"{name}={value}: must be even: {why}")


def divides(total: int, name: str, **settings: int) -> None:
    """Require divisors of `total`, which the message calls `name`."""
    for setting, value in settings.items():
        if total % value:
            raise ConfigError(f"{setting}={value}: must divide {name}, {total}")


def power_of_two(**settings: Any) -> None:
    """Require powers of two, 1 included."""
    for name, value in settings.items():
        if type(value) is not int or value < 1 or value & (value - 1):
            raise ConfigError(f"{name}={spelt(value)}: must be a power of two")


def choice(allowed: Collection[str], **settings: Any) -> None:
    """Require one of the allowed words; the message names the near miss."""
    for name, value in settings.items():
        if value not in allowed:
            raise ConfigError(f"{name}={spelt(value)}: {near_miss(str(value), allowed)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def spelt(value: Any) -> str:
    """Spell a value as YAML does."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _or_null(meaning: str) -> str:
    return f", or null: {meaning}" if meaning else ""
