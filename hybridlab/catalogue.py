"""`hybridlab mixers`: the named mixers and what they cost, measured."""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from hybridlab.build import build
from hybridlab.config import mixer_files, resolve
from hybridlab.mixers.base import state_bytes
from hybridlab.stack.plan import single_layer

WIDTH = 256
LENGTHS = (1024, 4096)


def show_mixers(config: Any) -> None:
    """Print every mixer that the search path names: kind, causality, parameters, state after 1,024 and 4,096 tokens, paper."""
    table = Table(title=f"mixers at width {WIDTH}")
    for column in ("name", "kind", "causal"):
        table.add_column(column)
    for column in ("parameters", *(f"state bytes, t {length:,}" for length in LENGTHS)):
        table.add_column(column, justify="right")
    table.add_column("paper")
    overrides = resolve(config)["mixers"]
    for name in mixer_files():
        layer = single_layer(name, WIDTH, overrides, mixer_files())
        with torch.device("meta"):
            mixer = build(layer.settings, layer.where, width=WIDTH)
            held = [_state_after(mixer, length) for length in LENGTHS]
        parameters = sum(parameter.numel() for parameter in mixer.parameters())
        numbers = [f"{number:,}" for number in (parameters, *held)]
        table.add_row(name, mixer.kind, "yes" if mixer.causal else "no", *numbers, mixer.paper)
    Console().print(table)


def _state_after(mixer: Any, length: int) -> int:
    row = torch.empty(1, length, WIDTH)
    with torch.no_grad():
        _, state = mixer.extend(row, mixer.initial_state(1, row))
    return state_bytes(state)
