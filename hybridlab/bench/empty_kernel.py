"""A GPU kernel that does nothing: it makes Triton load what any first kernel of a process needs."""

import triton  # pyright: ignore[reportMissingImports]


@triton.jit
def empty_kernel():
    """Do nothing."""
