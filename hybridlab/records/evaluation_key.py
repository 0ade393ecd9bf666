"""The name of an evaluation within a record: a hash of its settings."""

import hashlib
from typing import Any

from hybridlab.records.json_values import to_text

COUNTS = ("tokens", "documents", "bytes", "intervention_tokens", "scored")  # found, not set


def evaluation_key(settings: dict[str, Any]) -> str:
    """Return 8 hexadecimal digits: equal for equal settings, whatever the order of the keys."""
    return hashlib.sha256(to_text(settings, sort_keys=True).encode()).hexdigest()[:8]
