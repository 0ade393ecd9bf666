"""JSON that keeps every float; JSON has no numbers for NaN and the infinities.

These are written as the texts "NaN", "Infinity" and "-Infinity". A text that reads like one of
them is escaped by a backslash, so that both are read back exactly. Keys of mappings become texts,
and keep their order unless they are to be sorted.
"""

import json
import math
import re
from typing import Any

_LOOKS_LIKE_A_NUMBER = re.compile(r"\\*(NaN|Infinity|-Infinity)")


def to_text(value: Any, *, sort_keys: bool = False) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(_encode(value), sort_keys=sort_keys, allow_nan=False)


def from_text(text: str) -> Any:
    """Return the value that `to_text` wrote."""
    return _decode(json.loads(text, parse_constant=_refuse))


def plain(value: Any) -> Any:
    """Return a value as it is read back: tuples as lists, what JSON does not have as its `repr`."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | bool | int | float) else repr(value)


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str) and _LOOKS_LIKE_A_NUMBER.fullmatch(value):
        return "\\" + value
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, str) and (found := _LOOKS_LIKE_A_NUMBER.fullmatch(value)):
        return value[1:] if value.startswith("\\") else float(found[1])
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
