"""Compilation by PyTorch, without the optimisations that may change results."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

# PyTorch times matrix products to decide whether to pad them to round sizes, so two runs of one
# configuration would differ. In PyTorch 2.11 padding may even give silently wrong results: a tensor
# is written with other strides than it is read with (pull request 180898).
OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"shape_padding": False, "comprehensive_padding": False}


def compile_soundly(
    function: Callable[P, T], *, dynamic: bool | None = None, fullgraph: bool = False
) -> Callable[P, T]:
    """Compile a function or a module; `dynamic` and `fullgraph` as in `torch.compile`."""
    return torch.compile(function, dynamic=dynamic, fullgraph=fullgraph, options=OPTIONS)
