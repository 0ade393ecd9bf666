"""The plain PyTorch functions of flash-linear-attention, which run without a GPU and Triton."""

import importlib.util
from importlib.metadata import distribution
from types import ModuleType


def naive(file: str) -> ModuleType:
    """Load a file of fla/ops by its path: importing the package would import Triton."""
    path = distribution("fla-core").locate_file(f"fla/ops/{file}")
    spec = importlib.util.spec_from_file_location(f"naive_{file.split('/')[0]}", str(path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
