"""Numbers as text: as many digits as the interval supports, a dash if nothing was measured."""

import math
from typing import Any

from hybridlab.records.measurement import BOOTSTRAP, OVER_SEEDS
from hybridlab.report.runs.statistics import Estimate

NOT_MEASURED = "–"
SUFFIXES = ("", "k", "M", "G", "T", "P", "E")


def with_interval(estimate: Estimate | None, *, signed: bool = False) -> str:
    """Return the value and, on a second line, its interval, to two digits of its half width.

    >>> with_interval(Estimate(1.53418, 1.5121, 1.5568))
    '1.534\\n[1.512, 1.557]'
    """
    if estimate is None:
        return NOT_MEASURED
    if estimate.low is None or estimate.high is None:
        return significant(estimate.value, signed=signed)
    decimals = _decimals(estimate)
    ends = ", ".join(_fixed(end, decimals) for end in (estimate.low, estimate.high))
    return f"{_fixed(estimate.value, decimals, signed=signed)}\n[{ends}]"


def significant(value: float | int | None, digits: int = 4, *, signed: bool = False) -> str:
    """Return a number to `digits` significant digits, with an exponent if it is extreme."""
    if value is None:
        return NOT_MEASURED
    if not math.isfinite(value) or value == 0:
        return _fixed(value, 0, signed=signed)
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded number: 9.9996 becomes 10.00
    if not -5 <= exponent <= 9:
        return _minus(f"{value:{'+' if signed else ''}.{digits - 1}e}")
    return _fixed(value, max(0, digits - 1 - exponent), signed=signed)


def plain(value: float) -> str:
    """Return a number to at most four significant digits, as an author would write it."""
    return _minus(f"{value:.4g}")


def count(value: float | int | None) -> str:
    """Return a count to three significant digits, with a suffix k, M, G, ...

    >>> count(128), count(1_214_336), count(999_950)
    ('128', '1.21M', '1.00M')
    """
    if value is None:
        return NOT_MEASURED
    if not math.isfinite(value):
        return _fixed(value, 0)
    if abs(value) < 1000 and value == round(value):
        return _minus(str(round(value)))
    value = float(f"{value:.3g}")
    power = min(max(0, math.floor(math.log10(abs(value)) / 3)), len(SUFFIXES) - 1) if value else 0
    return significant(value / 1000**power, 3) + SUFFIXES[power]


def percent(ratio: float) -> str:
    """Return a change as a signed percentage: 1.034 is +3.4 %."""
    return f"{_fixed(100 * (ratio - 1), 1, signed=True)} %"


def p_value(p: float | None) -> str:
    """Return a p-value to two digits, and no smaller than a test over few seeds supports.

    >>> p_value(0.0342), p_value(0.00004)
    ('0.034', '<0.001')
    """
    if p is None:
        return NOT_MEASURED
    return "<0.001" if p < 0.001 else significant(p, 2)


def duration(seconds: float) -> str:
    """Return a time to two or three digits.

    >>> duration(9.4), duration(754), duration(12_345)
    ('9.4 s', '13 min', '3.4 h')
    """
    if seconds < 100:
        return f"{significant(seconds, 2)} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{significant(seconds / 3600, 2)} h"


def over(estimate: Estimate | None) -> str:
    """Return the cell on the sampling unit of an interval: 3 seeds, 23 documents."""
    if estimate is None or estimate.low is None:
        return NOT_MEASURED
    of = {OVER_SEEDS: "seeds", BOOTSTRAP: "documents"}[estimate.interval]
    return f"{estimate.n}\n{of}"


def how(estimate: Estimate | None) -> str:
    """Return the sentence of a caption on how the intervals were made."""
    if estimate is None or estimate.low is None:
        return "No intervals: one seed and one document."
    if estimate.interval == OVER_SEEDS:
        return f"Means over {estimate.n} seeds, with 95 % intervals by Student's t."
    return f"One seed; 95 % intervals by a bootstrap over {estimate.n} documents."


def setting(value: Any) -> str:
    """Return a value of the configuration as its author wrote it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(setting, value))
    return "null" if value is None else str(value)


def flat(facts: dict[str, Any], under: str = "") -> dict[str, str]:
    """Return nested facts as texts, by dotted name."""
    found: dict[str, str] = {}
    for key, fact in facts.items():
        found |= flat(fact, f"{under}{key}.") if isinstance(fact, dict) else {f"{under}{key}": setting(fact)}
    return found


def _decimals(estimate: Estimate) -> int:
    assert estimate.low is not None
    assert estimate.high is not None
    half = (estimate.high - estimate.low) / 2
    if not math.isfinite(half) or half <= 0:
        return 4
    return min(4, max(0, 1 - math.floor(math.log10(half))))


def _fixed(value: float | int, decimals: int, *, signed: bool = False) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:{'+' if signed else ''}.{decimals}f}"
    return text.lstrip("+-") if float(text) == 0 else _minus(text)


def _minus(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
