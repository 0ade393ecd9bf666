"""PyTorch's random state in checkpoints."""

from typing import Any

import lightning
import torch


class RandomState(lightning.Callback):
    """Saves PyTorch's random state in checkpoints, which Lightning does not.

    So a resumed run draws the dropout masks that an uninterrupted one draws. `started` is the state
    when training started in this process.
    """

    def __init__(self) -> None:
        self.started: dict[str, Any] | None = None
        self._saved: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generators."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts.

        Building and moving the model draws random numbers before that.
        """
        self.restore(state_dict)

    def restore(self, state: dict[str, Any] | None) -> None:
        """Restore some states when training starts."""
        self._saved = state

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the generators of a resumed run."""
        if (saved := self._saved) is not None:
            torch.set_rng_state(saved["cpu"].cpu())
            if saved["cuda"]:
                torch.cuda.set_rng_state_all([state.cpu() for state in saved["cuda"]])
        self.started = self.state_dict()
