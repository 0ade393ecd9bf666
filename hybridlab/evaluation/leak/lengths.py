"""Which lengths, cuts and chunks are tried."""

from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import Any

import torch

LENGTHS = (1, 2, 7, 16, 33, 63, 64, 65, 129)
TOKEN_BY_TOKEN = 2048  # tokens: up to this length every position is compared
FEW_STEPS = 128  # of decoding, where the same mixer has passed with other weights
CHUNKS = (3, 1, 61, 2, 64, 17, 128, 29)
LEAST = 130  # tokens: shorter runs are probed up to here too, by mixers that can


def probe_lengths(settings: dict[str, Any], longest: int) -> list[int]:
    """Return the lengths to compare with `longest`: short ones, the next shorter one, and those
    around each whole number among the hyper-parameters.

    A leak may show only at a block's boundary, and block sizes are hyper-parameters.
    """
    around = {near for size in _sizes(settings) for near in (size - 1, size, size + 1, 2 * size + 1)}
    return sorted(length for length in {*around, *LENGTHS, longest - 1} if 1 <= length < longest)


def _sizes(settings: Mapping[str, Any]) -> set[int]:
    """Return the whole numbers above 1 among the hyper-parameters, including those of parallel
    parts."""
    found = set()
    for value in settings.values():
        if isinstance(value, Mapping):
            found |= _sizes(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 1:
            found.add(value)
    return found


def cuts(length: int, seed: int = 0) -> list[int]:
    """Return last unchanged positions to try, from 0 to length - 2: near both ends, before the ends
    of blocks, and some drawn at random.
    """
    drawn = torch.randint(max(length - 1, 1), (6,), generator=torch.Generator().manual_seed(seed)).tolist()
    block = 63 + 64 * ((length - 65) // 128) if length > 64 else 0
    first = [length - 2, length // 2, 0, block, length - 9, drawn[0], length // 3, 1, *drawn[1:]]
    return list(dict.fromkeys(cut for cut in first if 0 <= cut <= length - 2))


def steps(length: int, most: int = TOKEN_BY_TOKEN) -> list[int]:
    """Return at most `most` chunks of decoding: token by token if they are enough, otherwise half
    of them for the first tokens, and the rest in uneven sizes.
    """
    if length <= most:
        return [1] * length
    rest = length - most // 2
    mean = 2 * rest // most
    return [1] * (most // 2) + fill(rest, (mean + 1, 1, 2 * mean + 1, mean + 2))


def fill(length: int, sizes: Iterable[int] = CHUNKS) -> list[int]:
    """Return sizes that repeat until they add up to `length`, the last one cut short."""
    chosen: list[int] = []
    left = length
    for size in cycle(sizes):
        if left <= 0:
            break
        chosen.append(min(size, left))
        left -= size
    return chosen
