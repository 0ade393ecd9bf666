"""How a model or an op is compiled: by PyTorch's compiler, without optimisations that may make it wrong."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

# Whether products are filled up to round sizes depends on how long they take at that moment: two runs of one config
# would differ. In PyTorch 2.11 a result may even be silently wrong then, because a tensor is written by other strides
# than those, filled up too, by which it is read (pull request 180898).
OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"shape_padding": False, "comprehensive_padding": False}


def compile_soundly(
    function: Callable[P, T], *, dynamic: bool | None = None, fullgraph: bool = False
) -> Callable[P, T]:
    """Compile a function or a module; `dynamic` and `fullgraph` as in `torch.compile`."""
    return torch.compile(function, dynamic=dynamic, fullgraph=fullgraph, options=OPTIONS)
