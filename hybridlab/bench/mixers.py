"""The training cost of each mixer, next to the bare attention op, at several sequence lengths."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hybridlab.bench.timing import Timing, time_training
from hybridlab.config import mixer_files
from hybridlab.stack.layer import Layer, build_mixer
from hybridlab.stack.plan import check_mixer_name, has_causal_form, single_layer
from hybridlab.training.compiler import compile_soundly

HEAD_WIDTH = 64


@dataclass(frozen=True)
class Setting:
    """The sizes and the precision at which mixers are compared."""

    device: torch.device
    heads: int
    lengths: tuple[int, ...]
    tokens: int | None  # per batch; None: `batch` sequences at every length
    batch: int
    mixed_precision: bool  # bfloat16 autocast, compiled
    growth_lengths: tuple[int, int] = (2048, 8192)

    @classmethod
    def on(cls, device: torch.device) -> "Setting":
        """Return the setting for a GPU or a CPU."""
        if device.type == "cuda":
            return cls(device, 16, (2048, 8192, 32768), 32768, 0, True, (8192, 32768))
        return cls(device, 4, (512, 2048, 8192), None, 2, False)

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return self.heads * HEAD_WIDTH

    def sequences(self, length: int) -> int:
        """Return the batch size at a length."""
        return self.batch if self.tokens is None else max(self.tokens // length, 1)

    def title(self) -> str:
        """Return the title of a table with this setting."""
        size = f"batch {self.batch}" if self.tokens is None else f"{self.tokens:,} tokens"
        precision = "bfloat16 autocast, compiled" if self.mixed_precision else "float32"
        return f"forward + backward, ms ({size}, width {self.width}: {self.heads} heads of {HEAD_WIDTH}, {precision})"


def mixer_table(console: Console, overrides: dict[str, Any], setting: Setting, names: Sequence[str] = ()) -> Table:
    """Time every named mixer, in its causal form if it has one, and the attention op."""
    table = empty_table(setting)
    reference = {length: _time_attention(setting, length) for length in setting.lengths}
    table.add_row("scaled_dot_product_attention", *cells(reference, None, setting))
    for name, timings in _time_mixers(overrides, setting, names):
        table.add_row(name, *cells(timings, reference, setting))
        console.print(f"{name}: {timings[setting.lengths[-1]].milliseconds:.1f} ms at t {setting.lengths[-1]:,}")
    return table


def empty_table(setting: Setting) -> Table:
    """Return a table without rows that fits a terminal of 80 columns."""
    title = f"{setting.title()}; in brackets: relative to attention"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("mixer", width=16, overflow="fold")  # the longest name
    for length in setting.lengths:
        table.add_column(f"t {length:,}", justify="right", no_wrap=True)
    short, long = (f"{length // 1024}k" for length in setting.growth_lengths)
    table.add_column(f"time\n{long} /\n{short}", justify="right", no_wrap=True)
    if setting.device.type == "cuda":
        table.add_column("first\ncall,\ns", justify="right", no_wrap=True)
    for length in (short, long):
        table.add_column(f"peak\nMiB,\n{length}", justify="right", no_wrap=True)
    return table


def check_names(names: Sequence[str]) -> None:
    """Validate that each name is that of a mixer."""
    for name in names:
        check_mixer_name(name, f"--mixers={name}", mixer_files())


def _time_mixers(
    overrides: dict[str, Any], setting: Setting, names: Sequence[str]
) -> Iterator[tuple[str, dict[int, Timing]]]:
    for name in names or mixer_files():
        layer = layer_of(name, overrides, setting)
        mixer = build_mixer(layer, setting.width, has_causal_form(layer)).to(setting.device)
        torch.compiler.reset()
        forward = compile_soundly(mixer, dynamic=False) if setting.mixed_precision else mixer
        yield name, {length: _time_mixer(mixer, forward, setting, length) for length in setting.lengths}


def layer_of(name: str, overrides: dict[str, Any], setting: Setting) -> Layer:
    """Return a mixer as configured, with the setting's heads unless `overrides` sets them."""
    layer = single_layer(name, setting.width, overrides, mixer_files())
    if "heads" not in layer.settings or "heads" in overrides.get(name, {}):
        return layer
    return replace(layer, settings={**layer.settings, "heads": setting.heads})


def _time_mixer(mixer: torch.nn.Module, forward: Any, setting: Setting, length: int) -> Timing:
    x = torch.randn(setting.sequences(length), length, setting.width, device=setting.device, requires_grad=True)

    def run() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16) if setting.mixed_precision else nullcontext():
            return forward(x)

    return time_training(run, [x, *mixer.parameters()], setting.device)


def _time_attention(setting: Setting, length: int) -> Timing:
    shape = (setting.sequences(length), setting.heads, length, HEAD_WIDTH)
    dtype = torch.bfloat16 if setting.mixed_precision else torch.float32
    q, k, v = (torch.randn(shape, device=setting.device, dtype=dtype, requires_grad=True) for _ in range(3))
    return time_training(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), [q, k, v], setting.device)


def cells(timings: dict[int, Timing], reference: dict[int, Timing] | None, setting: Setting) -> list[str]:
    """Return the cells of one mixer: times, also relative to the reference, growth and memory."""
    row = []
    for length in setting.lengths:
        milliseconds = timings[length].milliseconds
        relative = "" if reference is None else f" ({_three_digits(milliseconds / reference[length].milliseconds, 2)}×)"
        row.append(f"{_three_digits(milliseconds, 1)}{relative}")
    short, long = (timings[length].milliseconds for length in setting.growth_lengths)
    row.append(f"{long / short:.2f}")
    if setting.device.type == "cuda":
        row.append(f"{timings[setting.lengths[0]].first:.1f}")
    return row + [f"{timings[length].peak_bytes / 2**20:,.0f}" for length in setting.growth_lengths]


def _three_digits(x: float, decimals: int) -> str:
    """Format a number with three significant digits, or all digits before the decimal point."""
    return f"{x:.{min(max(3 - len(str(int(x))), 0), decimals)}f}"
