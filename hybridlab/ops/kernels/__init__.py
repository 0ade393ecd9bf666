"""Triton kernels, and the one place that chooses between them and PyTorch (`dispatch`)."""
