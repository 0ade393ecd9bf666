"""The progress bar of a run."""

import math
from typing import Any

from lightning.pytorch.callbacks import RichProgressBar

from hybridlab.training.curve import Curve
from hybridlab.training.stream import UNENDING


class Progress(RichProgressBar):
    """Lightning's progress bar, with the latest loss and the tokens per second."""

    def __init__(self, curve: Curve) -> None:
        super().__init__()
        self.curve = curve

    @property
    def total_train_batches(self) -> int | float:
        """The number of batches; infinite under a budget in seconds."""
        total = super().total_train_batches
        return math.inf if total == UNENDING else total

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        """Return the loss and the speed."""
        if not self.curve.measurements:
            return {}
        latest = self.curve.measurements[-1]
        return {latest.name: f"{latest.value:.3f}", "tokens/s": f"{self.curve.tokens_per_second:,.0f}"}
