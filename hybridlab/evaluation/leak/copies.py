"""Copies of modules to probe, so that the run's own stay untouched."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Module = TypeVar("Module", bound=nn.Module)

NOISE = 0.1


def copied(module: Module, device: torch.device, dtype: torch.dtype | None = None) -> Module:
    """Copy a module to a device, and to a floating dtype if one is given (complex numbers to its
    complex relative).

    Tensors that the module has kept of a graph, as attributes, are copied without it.
    """
    kept = [leaf for part in module.modules() for leaf in tree_leaves(list(vars(part).values()))]
    memo: dict[int, Any] = {id(leaf): leaf.detach().clone() for leaf in kept if _of_a_graph(leaf)}
    twin = copy.deepcopy(module, memo)
    for part in twin.modules():
        for tensors in (part._parameters, part._buffers):
            for tensor in tensors.values():
                if tensor is not None:
                    tensor.data = tensor.data.to(device, _like(tensor, dtype))
    return twin


def open_paths(module: nn.Module) -> None:
    """Add noise to the weights: an initialisation by zeros would hide what training opens.

    It is as large as the usual initialisation of a linear map, and 0.1 at most.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() or parameter.is_complex():
                inputs = parameter.shape[-1] if parameter.ndim > 1 else 1
                parameter += min(NOISE, inputs**-0.5) * torch.randn_like(parameter)


def _of_a_graph(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and not leaf.is_leaf


def _like(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None or not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor.dtype
    return dtype.to_complex() if tensor.is_complex() else dtype
