"""The mathematics: tensors in, tensors out; each file has the obvious form first, then the fast
one."""
