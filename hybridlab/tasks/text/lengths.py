"""The distribution of the lengths of a corpus's documents."""

from typing import Any

import numpy as np
from jaxtyping import Int64

_QUANTILES = {"min": 0.0, "p10": 0.1, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}


def distribution(lengths: Int64[np.ndarray, " documents"]) -> dict[str, Any]:
    """Return quantiles of the lengths, and a histogram with bins from each power of two to the
    next."""
    powers, counts = np.unique(np.frexp(lengths)[1] - 1, return_counts=True)
    return {
        "quantiles": {name: round(float(np.quantile(lengths, share))) for name, share in _QUANTILES.items()},
        "histogram": {
            f"{1 << power}-{(2 << power) - 1}": count
            for power, count in zip(powers.tolist(), counts.tolist(), strict=True)
        },
    }
