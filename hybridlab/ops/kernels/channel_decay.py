"""How decays per channel lie between the tokens of a chunk of 64, for GPU kernels.

`left` are the log decays [n 64 k], summed from the start of each of n chunks to each token, itself included. Programs take 64
columns at a time (`part`), or `across` many.
"""

import triton
import triton.language as tl


@triton.jit
def tile(pointer, number, height: tl.constexpr, width, part):
    """Point at 64 columns of a matrix: of the vectors of a chunk's tokens, or of a state."""
    rows, columns = number * height + tl.arange(0, height), part * 64 + tl.arange(0, 64)
    return pointer + rows[:, None] * width + columns[None, :]


@triton.jit
def vectors_of(pointer, number, tokens, width, part, across: tl.constexpr = 64):
    """Point at some columns of the vectors of some tokens of a chunk."""
    return pointer + (number * 64 + tokens)[:, None] * width + (part * across + tl.arange(0, across))[None, :]


@triton.jit
def decay_before(left, number, tokens, width, part, across: tl.constexpr = 64):
    """Return the log decay from the chunk's start until before each of the `tokens`."""
    return tl.load(vectors_of(left, number, tokens - 1, width, part, across), mask=(tokens > 0)[:, None], other=0.0)


@triton.jit
def decay_seen(left, number, tokens, width, part, early: tl.constexpr, across: tl.constexpr = 64):
    """Return the log decay from the chunk's start until each token reads: before its own decay, if `early`."""
    return decay_before(left, number, tokens + (0 if early else 1), width, part, across)


# Any two tokens of a chunk are, at one level, in blocks of 2^level tokens next to each other that make up one of the next
# level: half of the tokens in the earlier block of their pair of blocks, half in the later one. So the decay between two
# tokens is a product of what is left since the later one's block began and of what is left when the earlier one's ended:
# two factors, neither of which is above 1, whatever the decays.
@triton.jit
def earlier_tokens(level):
    """Return the 32 tokens in earlier blocks."""
    i = tl.arange(0, 32)
    return ((i >> level) << (level + 1)) | (i & ((1 << level) - 1))


@triton.jit
def are_joined(later, earlier, level):
    """Mark the pairs of tokens that are in blocks next to each other."""
    return (later >> level == (earlier >> level) + 1) & ((earlier >> level) % 2 == 0)


@triton.jit
def left_since(left, number, tokens, level, width, part, early: tl.constexpr, across: tl.constexpr = 64):
    """Return what is left, at each token, of what there was at the start of its block."""
    start = decay_before(left, number, (tokens >> level) << level, width, part, across)
    return tl.exp(decay_seen(left, number, tokens, width, part, early, across) - start)


@triton.jit
def left_until(left, number, tokens, level, width, part, across: tl.constexpr = 64):
    """Return what is left of each token at the end of its block."""
    end = decay_before(left, number, ((tokens >> level) + 1) << level, width, part, across)
    return tl.exp(end - decay_before(left, number, tokens + 1, width, part, across))
