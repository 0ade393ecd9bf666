"""What a run prints in the terminal."""

import logging
import warnings
from typing import IO, cast

from rich.console import Console
from rich.table import Table

from hybridlab.records.record import RunRecord
from hybridlab.stdout import Printable

console = Console(file=cast(IO[str], Printable()))


def quieten() -> None:
    """Silence messages of Lightning and PyTorch's compiler that a user cannot act on.

    They list the hardware, advertise, or warn of deprecations inside these libraries.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    for message in (
        r".*does not have many workers.*",
        r".*no `val_dataloader`.*",
        r".*TensorFloat32 tensor cores.*",
        r"\s*Online softmax is disabled.*",
        r".*isinstance\(treespec, LeafSpec\).*",
        r".*Checkpoint directory .* exists.*",
        r".*Experiment logs directory .* exists.*",  # a resumed run writes its curve again
        r".*number of training batches .* is smaller than the logging interval.*",
        r".*AMP with fp16 is not supported on CPU.*",  # `check_machine` refuses the run
        r"MLFlow only allows.*",
    ):
        warnings.filterwarnings("ignore", message)


def say(line: str) -> None:
    """Print one plain line."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_plan(record: RunRecord) -> None:
    """Print the expanded stack, one row per layer."""
    table = Table(title=f"run {record.run_id}: plan", title_justify="left")
    for column in ("layer", "group", "mixer"):
        table.add_column(column)
    for column in ("parameters", "forward FLOPs", "state bytes"):
        table.add_column(column, justify="right")
    for layer in record.plan:
        numbers = [f"{layer[key]:,}" for key in ("parameters", "flops", "state_bytes")]
        table.add_row(str(layer["layer"]), layer["group"], layer["mixer"], *numbers)
    console.print(table)
