"""`hybridlab mixers`: the named mixers and their measured costs."""

from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hybridlab.config import mixer_files, resolve
from hybridlab.evaluation.cost.growth import LONG, SHORT, Cost, exponent, training_cost
from hybridlab.evaluation.cost.kernels import kernels_of
from hybridlab.mixers.base import Mixer
from hybridlab.stack.layer import build_mixer
from hybridlab.stack.measure import parameters
from hybridlab.stack.plan import has_causal_form, single_layer

WIDTH = 256
NAMED = 16  # characters of the longest name, which a terminal of 80 columns must show


def show_mixers(config: Any) -> None:
    """Print every mixer of the search path with its size, costs, decoding state and GPU kernels."""
    title = f"width {WIDTH}: training cost per token, state; t = {SHORT:,}, growing as t^p to {LONG:,}"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("mixer, paper", min_width=NAMED, overflow="fold")
    table.add_column("kind, form", no_wrap=True)
    for column in ("params", "train\nMFLOP", "train\nKB", "t^p", "state\nKB", "t^p"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("kernel", no_wrap=True)
    overrides = resolve(config)["mixers"]
    for name in mixer_files():
        layer = single_layer(name, WIDTH, overrides, mixer_files())
        with torch.device("meta"):
            mixer = build_mixer(layer, WIDTH, has_causal_form(layer))
            with kernels_of() as kernels:
                short = training_cost(mixer, WIDTH, SHORT)
            long = training_cost(mixer, WIDTH, LONG)
            both = mixer.causal and not build_mixer(layer, WIDTH, causal=False).causal
        named = Text.assemble((name, "bold"), "\n", (mixer.paper, "dim"))
        table.add_row(
            named, f"{mixer.kind}\n{_forms(mixer, both)}", *_costs(mixer, short, long), "\n".join(kernels) or "–"
        )
    Console().print(table)


def _forms(mixer: Mixer, both: bool) -> str:
    return "both" if both else "causal" if mixer.causal else "non-causal"


def _costs(mixer: Mixer, short: Cost, long: Cost) -> list[str]:
    training = max(exponent(short.flops, long.flops), exponent(short.written, long.written))
    return [
        f"{parameters(mixer):,}",
        f"{short.flops / SHORT / 1e6:.2f}",
        f"{short.written / SHORT / 1e3:,.0f}",
        f"{training:.2f}",
        "–" if short.state is None else f"{short.state / 1e3:,.0f}",
        "–" if short.state is None else f"{exponent(short.state, long.state):.2f}",
    ]
