"""Layers in words: their range, their mixers."""

from typing import Any


def layer_range(indices: list[int]) -> str:
    """Write layer numbers as ranges.

    >>> layer_range([0, 1, 2, 5])
    '0–2, 5'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def mixers(layers: list[dict[str, Any]]) -> str:
    """Name the mixers of some layers of a plan: `2 × full`, or each in order if they differ."""
    names = [layer["mixer"] for layer in layers]
    return f"{len(names)} × {names[0]}" if len(set(names)) == 1 else ", ".join(names)
