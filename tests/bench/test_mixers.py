"""The table of the mixers' costs fits a terminal of 80 columns, on a CPU or on a GPU."""

import io
from typing import Any

import pytest
import torch
from rich.console import Console

from hybridlab.bench.mixers import Setting, cells, empty_table, layer_of
from hybridlab.bench.timing import Timing
from hybridlab.config import mixer_files


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_table_fits_80_columns(device: str) -> None:
    setting = Setting.on(torch.device(device))
    reference = {length: Timing(0.1, 1.61, 644 << 20) for length in setting.lengths}
    timings = {
        length: Timing(112.3, milliseconds, 5512 << 20)
        for length, milliseconds in zip(setting.lengths, (3.2, 26.5, 2059.1), strict=True)
    }
    slow = {length: Timing(1.2, 1.61 * 26.5, 644 << 20) for length in setting.lengths}
    table = empty_table(setting)
    for name in mixer_files():
        table.add_row(name, *cells(timings, reference, setting))
    table.add_row("last", *cells(slow, reference, setting))
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "…" not in shown
    for text in (*mixer_files(), "3.2 (1.99×)", "26.5 (16.5×)", "2059 (1279×)", "42.7 (26.5×)", "5,512", "644"):
        assert text in shown
    assert ("112.3" in shown) == (device == "cuda")


@pytest.mark.parametrize(
    ("overrides", "heads"), [({}, 16), ({"delta": {"heads": 8}}, 8), ({"delta": {"chunk": 32}}, 16)]
)
def test_mixers_use_the_heads_in_the_title(overrides: dict[str, Any], heads: int) -> None:
    assert layer_of("delta", overrides, Setting.on(torch.device("cuda"))).settings["heads"] == heads
    assert "heads" not in layer_of("mamba2", overrides, Setting.on(torch.device("cuda"))).settings
