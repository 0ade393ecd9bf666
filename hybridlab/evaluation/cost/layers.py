"""The cost of each layer, measured on the layer itself: parameters, FLOPs, decoding state, time."""

import copy
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from hybridlab.errors import ConfigError
from hybridlab.stack.measure import forward_flops, parameters, state_after
from hybridlab.stack.model import Stack

REPEATS = 5

_measured: dict[tuple[Any, ...], "LayerCost"] = {}  # the runs of a sweep share most of their layers


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer for one sequence of `length` tokens."""

    parameters: int
    flops: int  # forward, by PyTorch's counter; causal attention counts as full
    state_bytes: int  # of its mixer after `length` tokens, in the weights' dtype


def layer_costs(stack: Stack, length: int) -> list[LayerCost]:
    """Measure every distinct layer on the meta device, once per process.

    A bidirectional layer has no state.
    """
    costs = []
    for planned, layer in zip(stack.plan.layers, stack.layers, strict=True):
        key = (planned.fingerprint, str(stack.plan.channel), stack.plan.width, stack.plan.causal, length)
        if key in _measured:
            costs.append(_measured[key])
            continue
        shadow: Any = copy.deepcopy(layer).to("meta")
        flops = forward_flops(shadow, stack.plan.width, length)
        try:
            state = state_after(shadow.mixer, stack.plan.width, length) if shadow.mixer.causal else 0
        except NotImplementedError as error:
            raise ConfigError(f"mixer `{planned.mixer}`: `initial_state` and `extend` are missing") from error
        _measured[key] = LayerCost(parameters(layer), flops, state)
        costs.append(_measured[key])
    return costs


def plan_rows(stack: Stack, length: int) -> list[dict[str, Any]]:
    """Return the expanded plan as data: mixer, hyper-parameters and cost of each layer."""
    return [
        {
            "layer": layer.index,
            "group": layer.group,
            "mixer": layer.mixer,
            "settings": layer.all_settings(),
            "channel": stack.plan.channel,
            **asdict(cost),
        }
        for layer, cost in zip(stack.plan.layers, layer_costs(stack, length), strict=True)
    ]


def layer_milliseconds(layer: nn.Module, width: int, length: int, device: torch.device) -> float:
    """Return the median milliseconds of forward and backward of a layer for one sequence, in the
    precision of its weights.

    Parameters that get no gradient, or take none, are timed as what they are.
    """
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    dtype = trained[0].dtype if trained else torch.get_default_dtype()
    x = torch.randn(1, length, width, device=device, dtype=dtype, requires_grad=True)
    taken = []
    for _ in range(1 + REPEATS):
        wait(device)
        start = time.perf_counter()
        torch.autograd.grad(layer(x).sum(), [x, *trained], allow_unused=True)
        wait(device)
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken[1:])


def wait(device: torch.device) -> None:
    """Wait until the device has finished: a GPU runs asynchronously."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
