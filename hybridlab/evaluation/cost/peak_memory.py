"""The most memory that a run held."""

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory held so far: on the GPU by PyTorch, on the CPU by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
