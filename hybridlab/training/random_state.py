"""PyTorch's random state in checkpoints."""

from typing import Any

import lightning
import torch


class RandomState(lightning.Callback):
    """Saves PyTorch's random state in checkpoints, which Lightning does not.

    So a resumed run draws the dropout masks that an uninterrupted one draws.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generators."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts.

        Building and moving the model draws random numbers before that.
        """
        self._saved = state_dict

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Restore the generators of a resumed run."""
        if (saved := getattr(self, "_saved", None)) is not None:
            torch.set_rng_state(saved["cpu"].cpu())
            if saved["cuda"]:
                torch.cuda.set_rng_state_all([state.cpu() for state in saved["cuda"]])
