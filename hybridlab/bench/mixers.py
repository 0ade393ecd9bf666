"""What each mixer costs to train, beside the bare attention operation, at lengths that show how it grows."""

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
    tokens: int | None  # in all rows together; else `batch` rows of every length
    batch: int
    half: bool  # bfloat16 by autocast, compiled
    growth: tuple[int, int] = (2048, 8192)

    @classmethod
    def on(cls, device: torch.device) -> "Setting":
        """Return the setting of a GPU or of a CPU."""
        if device.type == "cuda":
            return cls(device, 16, (2048, 8192, 32768), 32768, 0, True, (8192, 32768))
        return cls(device, 4, (512, 2048, 8192), None, 2, False)

    @property
    def width(self) -> int:
        """The width of the stream."""
        return self.heads * HEAD_WIDTH

    def rows(self, length: int) -> int:
        """Return how many rows of a length are mixed at once."""
        return self.batch if self.tokens is None else max(self.tokens // length, 1)

    def title(self) -> str:
        """Say what is timed."""
        rows = f"b {self.batch}" if self.tokens is None else f"{self.tokens:,} tokens"
        how = "bfloat16 by autocast, compiled" if self.half else "float32"
        return f"forward + backward, ms ({rows}, width {self.width}: {self.heads} heads of {HEAD_WIDTH}, {how})"


def mixer_table(console: Console, overrides: dict[str, Any], setting: Setting, names: Sequence[str] = ()) -> Table:
    """Time every named mixer in its causal form, if it has one, beside the attention operation."""
    table = empty_table(setting)
    reference = {length: _attention(setting, length) for length in setting.lengths}
    table.add_row("scaled_dot_product_attention", *cells(reference, None, setting))
    for name, found in _timings(overrides, setting, names):
        table.add_row(name, *cells(found, reference, setting))
        console.print(f"{name}: {found[setting.lengths[-1]].milliseconds:.1f} ms at t {setting.lengths[-1]:,}")
    return table


def empty_table(setting: Setting) -> Table:
    """Return a table without rows, all of whose columns can be read in 80 columns of a terminal."""
    title = f"{setting.title()}; × attention in brackets"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("mixer", width=16, overflow="fold")  # the longest name
    for length in setting.lengths:
        table.add_column(f"t {length:,}", justify="right", no_wrap=True)
    few, many = (f"{length // 1024}k" for length in setting.growth)
    table.add_column(f"grows\n{few} to\n{many}", justify="right", no_wrap=True)
    if setting.device.type == "cuda":
        table.add_column("first\ncall,\ns", justify="right", no_wrap=True)
    for length in (few, many):
        table.add_column(f"peak\nMiB,\n{length}", justify="right", no_wrap=True)
    return table


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that no mixer has."""
    for name in names:
        check_mixer_name(name, f"--mixers={name}", mixer_files())


def _timings(
    overrides: dict[str, Any], setting: Setting, names: Sequence[str]
) -> Iterator[tuple[str, dict[int, Timing]]]:
    for name in names or mixer_files():
        layer = layer_of(name, overrides, setting)
        mixer = build_mixer(layer, setting.width, has_causal_form(layer)).to(setting.device)
        torch.compiler.reset()
        call = compile_soundly(mixer, dynamic=False) if setting.half else mixer
        yield name, {length: _mixer(mixer, call, setting, length) for length in setting.lengths}


def layer_of(name: str, overrides: dict[str, Any], setting: Setting) -> Layer:
    """Return a mixer as configured, with as many heads as the setting has unless the configuration says how many."""
    layer = single_layer(name, setting.width, overrides, mixer_files())
    if "heads" not in layer.settings or "heads" in overrides.get(name, {}):
        return layer
    return replace(layer, settings={**layer.settings, "heads": setting.heads})


def _mixer(mixer: torch.nn.Module, call: Any, setting: Setting, length: int) -> Timing:
    row = torch.randn(setting.rows(length), length, setting.width, device=setting.device, requires_grad=True)

    def run() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16) if setting.half else nullcontext():
            return call(row)

    return time_training(run, [row, *mixer.parameters()], setting.device)


def _attention(setting: Setting, length: int) -> Timing:
    shape = (setting.rows(length), setting.heads, length, HEAD_WIDTH)
    dtype = torch.bfloat16 if setting.half else torch.float32
    q, k, v = (torch.randn(shape, device=setting.device, dtype=dtype, requires_grad=True) for _ in range(3))
    return time_training(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), [q, k, v], setting.device)


def cells(found: dict[int, Timing], reference: dict[int, Timing] | None, setting: Setting) -> list[str]:
    """Return the row of what was found of one mixer at each length; its times are also given as shares of the reference's."""
    row = []
    for length in setting.lengths:
        taken = found[length].milliseconds
        share = "" if reference is None else f" ({_short(taken / reference[length].milliseconds, 2)}×)"
        row.append(f"{_short(taken, 1)}{share}")
    few, many = (found[length].milliseconds for length in setting.growth)
    row.append(f"{many / few:.2f}")
    if setting.device.type == "cuda":
        row.append(f"{found[setting.lengths[0]].first:.1f}")
    return row + [f"{found[length].peak_bytes / 2**20:,.0f}" for length in setting.growth]


def _short(x: float, decimals: int) -> str:
    """Return a number with three digits, or all of those before the point."""
    return f"{x:.{min(max(3 - len(str(int(x))), 0), decimals)}f}"
