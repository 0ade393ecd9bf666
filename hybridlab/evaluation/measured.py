"""What an evaluation finds: measurements, and the reasons why some measures have none."""

from collections.abc import Callable, Iterable
from math import isfinite
from typing import NamedTuple

import torch

from hybridlab.errors import place_of, reason_of
from hybridlab.records.measurement import Measurement


class Measured(NamedTuple):
    """Measurements, and for each measure that failed, by its name, the reason in one line."""

    measurements: list[Measurement]
    missing: dict[str, str]


def attempt(names: Iterable[str], take: Callable[[], Iterable[Measurement]]) -> Measured:
    """Return what `take` measures; if it raises, return nothing, and the reason for each name.

    An interrupt by the user is passed on.
    """
    try:
        return Measured(list(take()), {})
    except Exception as error:
        place = place_of(error)
        reason = f"{reason_of(error)} ({place})" if place else reason_of(error)
    # After the handler: until then, the error's traceback keeps the tensors of its frames alive.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return Measured([], dict.fromkeys(names, reason))


def joined(parts: Iterable[Measured]) -> Measured:
    """Return several findings as one."""
    whole = Measured([], {})
    for part in parts:
        whole.measurements.extend(part.measurements)
        whole.missing.update(part.missing)
    return whole


def without_non_finite(measured: Measured, kept: Iterable[str]) -> Measured:
    """Leave out values that are no numbers, and say so; those of the measures `kept` stay.

    An ablated stack may overflow where the intact one does not.
    """
    found, missing = [], dict(measured.missing)
    kept = set(kept)
    for each in measured.measurements:
        bad = [value for value in (each.value, each.low, each.high) if value is not None and not isfinite(value)]
        if bad and each.measure not in kept:
            missing.setdefault(each.measure, f"not a finite number: {each.name} is {bad[0]}")
        else:
            found.append(each)
    return Measured(found, missing)
