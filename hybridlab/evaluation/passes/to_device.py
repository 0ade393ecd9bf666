"""Batches on the device of the stack."""

import torch

from hybridlab.tasks.batch import Batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch whose inputs, targets and documents are on a device."""
    documents = None if batch.documents is None else batch.documents.to(device)
    return batch._replace(inputs=batch.inputs.to(device), targets=batch.targets.to(device), documents=documents)
