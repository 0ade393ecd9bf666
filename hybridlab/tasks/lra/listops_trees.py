"""Random nested lists of digits and operators, drawn many at a time, depth by depth."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8

# Digits are their own tokens.
MIN, MAX, MED, SUM_MOD = OPERATORS = (10, 11, 12, 13)
END = 14
PADDING = 15
VOCABULARY = 16
DIGITS = 10
OPERATOR_SHARE = 0.25


class Level(NamedTuple):
    """The nodes of one depth, tree by tree; the next level holds the children of its operators, in
    order."""

    tree: Int64[np.ndarray, " n"]
    symbol: Int64[np.ndarray, " n"]  # a digit or an operator
    args: Int64[np.ndarray, " n"]  # of an operator; 0 of a digit

    def of(self, trees: Bool[np.ndarray, " trees"]) -> "Level":
        """Return the nodes of the chosen trees."""
        kept = trees[self.tree]
        return Level(self.tree[kept], self.symbol[kept], self.args[kept])


def grow(
    generator: np.random.Generator, count: int, max_depth: int, max_args: int, shortest: int, longest: int
) -> Iterator[tuple[UInt8[np.ndarray, " t"], int]]:
    """Draw `count` trees whose root is an operator; yield the tokens and values of those with a
    length in range."""
    levels = [_draw_level(generator, np.arange(count), np.ones(count, bool), max_args)]
    length = np.ones(count, np.int64)  # tokens, including one for each node of the next depth
    wanted = np.ones(count, bool)
    while len(levels[-1].tree):
        last = levels[-1]
        # Each operator adds its arguments and its closing bracket.
        length += np.bincount(last.tree, weights=last.args + (last.args > 0), minlength=count).astype(np.int64)
        wanted &= length <= longest  # drop trees that are too long already
        last = levels[-1] = last.of(wanted)
        children = np.repeat(last.tree, last.args)
        nested = (generator.random(len(children)) < OPERATOR_SHARE) & (len(levels) + 1 < max_depth)
        levels.append(_draw_level(generator, children, nested, max_args))
    wanted &= length >= shortest
    levels = [level.of(wanted) for level in levels[:-1]]
    values = _values(levels)
    tokens = _tokens(levels, int(length[wanted].sum()))
    return zip(np.split(tokens, length[wanted].cumsum()[:-1]) if wanted.any() else (), values.tolist(), strict=True)


def _draw_level(generator: np.random.Generator, tree: np.ndarray, nested: np.ndarray, max_args: int) -> Level:
    symbol, args = generator.integers(DIGITS, size=len(tree)), np.zeros(len(tree), np.int64)
    num_nested = int(nested.sum())
    symbol[nested] = generator.integers(OPERATORS[0], OPERATORS[-1] + 1, size=num_nested)
    args[nested] = generator.integers(2, max_args + 1, size=num_nested)
    return Level(tree, symbol, args)


def _values(levels: list[Level]) -> Int64[np.ndarray, " trees"]:
    """Return the value of each root, computed from the leaves up."""
    below = np.zeros(0, np.int64)
    for level in reversed(levels):
        operator = level.args > 0
        values = level.symbol.copy()
        values[operator] = _apply(level.symbol[operator], level.args[operator], below)
        below = values
    return below


def _apply(operators: np.ndarray, args: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Apply each operator to its arguments, the next `args` of `values`."""
    if not len(operators):
        return operators
    first = args.cumsum() - args
    group = np.repeat(np.arange(len(args)), args)
    ordered = np.sort(group * DIGITS + values) % DIGITS  # within each group
    median = (ordered[first + (args - 1) // 2] + ordered[first + args // 2]) // 2
    results = [ordered[first], ordered[first + args - 1], median, np.add.reduceat(values, first) % DIGITS]
    return np.choose(operators - OPERATORS[0], results)


def _tokens(levels: list[Level], total: int) -> UInt8[np.ndarray, " total"]:
    """Return the tokens of all trees, concatenated: an operator, its arguments, a closing
    bracket."""
    sizes: list[np.ndarray] = []  # tokens of each node's subtree
    for level in reversed(levels):
        operator = level.args > 0
        size = np.ones(len(level.args), np.int64)
        if operator.any():
            args = level.args[operator]
            size[operator] = 2 + np.add.reduceat(sizes[-1], args.cumsum() - args)
        sizes.append(size)
    tokens = np.empty(total, np.uint8)
    start = sizes[-1].cumsum() - sizes[-1]
    for depth, (level, size) in enumerate(zip(levels, reversed(sizes), strict=True)):
        operator = level.args > 0
        tokens[start] = level.symbol
        tokens[(start + size - 1)[operator]] = END
        if depth + 1 < len(levels):
            below = sizes[len(levels) - 2 - depth]
            before = below.cumsum() - below  # tokens of the nodes before each, at that depth
            args = level.args[operator]
            first = before[args.cumsum() - args] if len(args) else args
            start = np.repeat(start[operator] + 1 - first, args) + before
    return tokens
