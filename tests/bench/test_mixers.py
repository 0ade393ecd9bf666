"""The table of what mixers cost: nothing in it is cut in a terminal of 80 columns, on a CPU or on a GPU."""

import io

import pytest
import torch
from rich.console import Console

from hybridlab.bench.mixers import Setting, cells, empty_table
from hybridlab.bench.timing import Timing
from hybridlab.config import mixer_files


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_all_of_it_can_be_read(device: str) -> None:
    setting = Setting.on(torch.device(device))
    reference = {length: Timing(0.1, 1.61, 644 << 20) for length in setting.lengths}
    found = {
        length: Timing(112.3, taken, 5512 << 20)
        for length, taken in zip(setting.lengths, (3.2, 26.5, 2059.1), strict=True)
    }
    slow = {length: Timing(1.2, 1.61 * 26.5, 644 << 20) for length in setting.lengths}
    table = empty_table(setting)
    for name in mixer_files():
        table.add_row(name, *cells(found, reference, setting))
    table.add_row("last", *cells(slow, reference, setting))
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "…" not in shown
    for text in (*mixer_files(), "3.2 (1.99×)", "26.5 (16.5×)", "2059 (1279×)", "42.7 (26.5×)", "5,512", "644"):
        assert text in shown
    assert ("112.3" in shown) == (device == "cuda")
