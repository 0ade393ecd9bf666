"""Decays per channel between the tokens of a chunk of 64, for GPU kernels.

`cum_log_decay` [n 64 k] are log decays, summed from the start of each of n chunks up to and
including each token. `part` is the index of a block of columns: 64 of them, or `columns`.
"""

import triton
import triton.language as tl


@triton.jit
def tile(pointer, index, height: tl.constexpr, width, part):
    """Return pointers to 64 columns of a matrix: the vectors of a chunk's tokens, or a state."""
    rows, columns = index * height + tl.arange(0, height), part * 64 + tl.arange(0, 64)
    return pointer + rows[:, None] * width + columns[None, :]


@triton.jit
def token_vectors(pointer, index, tokens, width, part, columns: tl.constexpr = 64):
    """Return pointers to a block of columns of the vectors of these tokens of a chunk."""
    return pointer + (index * 64 + tokens)[:, None] * width + (part * columns + tl.arange(0, columns))[None, :]


@triton.jit
def decay_before(cum_log_decay, index, tokens, width, part, columns: tl.constexpr = 64):
    """Return the log decay from the chunk's start to just before each token."""
    return tl.load(
        token_vectors(cum_log_decay, index, tokens - 1, width, part, columns), mask=(tokens > 0)[:, None], other=0.0
    )


@triton.jit
def decay_at_read(cum_log_decay, index, tokens, width, part, early: tl.constexpr, columns: tl.constexpr = 64):
    """Return the log decay from the chunk's start to each token's read, which comes before its own
    decay if `early`."""
    return decay_before(cum_log_decay, index, tokens + (0 if early else 1), width, part, columns)


# At each level, blocks of 2^level tokens form pairs, and each pair is a block of the next level;
# half of the tokens are in the earlier block of their pair, half in the later one. Any two tokens
# meet in the two blocks of a pair at exactly one level. The decay between them is the product of
# two factors: from the earlier token to the end of its block, and from the start of the later block
# to the later token. Neither exceeds 1, whatever the decays.
@triton.jit
def earlier_tokens(level):
    """Return the 32 tokens in the earlier blocks of their pairs."""
    i = tl.arange(0, 32)
    return ((i >> level) << (level + 1)) | (i & ((1 << level) - 1))


@triton.jit
def are_paired(later, earlier, level):
    """Return the mask of token pairs whose blocks form a pair."""
    return (later >> level == (earlier >> level) + 1) & ((earlier >> level) % 2 == 0)


@triton.jit
def decay_since_block_start(
    cum_log_decay, index, tokens, level, width, part, early: tl.constexpr, columns: tl.constexpr = 64
):
    """Return the decay from the start of each token's block to the token's read."""
    start = decay_before(cum_log_decay, index, (tokens >> level) << level, width, part, columns)
    return tl.exp(decay_at_read(cum_log_decay, index, tokens, width, part, early, columns) - start)


@triton.jit
def decay_to_block_end(cum_log_decay, index, tokens, level, width, part, columns: tl.constexpr = 64):
    """Return the decay from each token to the end of its block."""
    end = decay_before(cum_log_decay, index, ((tokens >> level) + 1) << level, width, part, columns)
    return tl.exp(end - decay_before(cum_log_decay, index, tokens + 1, width, part, columns))
