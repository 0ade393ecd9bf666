"""Tasks: the batches that a stack is trained and evaluated on."""
