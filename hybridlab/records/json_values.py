"""JSON that keeps every float: NaN and the infinities are texts, since JSON has no numbers for them.

They are written "NaN", "Infinity" and "-Infinity". A text that reads like one of these gets a backslash in front, so
that nothing is mistaken on the way back. Keys of mappings become texts, and keep their order unless asked otherwise.
"""

import json
import math
import re
from typing import Any

_LOOKS_LIKE_A_NUMBER = re.compile(r"\\*(NaN|Infinity|-Infinity)")


def to_text(value: Any, *, sort_keys: bool = False) -> str:
    """Return one line of JSON."""
    return json.dumps(_encode(value), sort_keys=sort_keys, allow_nan=False)


def from_text(text: str) -> Any:
    """Return the value that `to_text` was given."""
    return _decode(json.loads(text, parse_constant=_refuse))


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
