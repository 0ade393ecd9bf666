"""The check that a run still belongs to this launcher."""

from typing import Any

import lightning

from hybridlab.records.claim import Claim


class ClaimGuard(lightning.Callback):
    """Stops a run that another launcher has taken over, before this one writes into its folder."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Raise if the claim is lost."""
        self.claim.check()
