"""The mathematics: tensors in, tensors out, the obvious form first and the fast one under it."""
