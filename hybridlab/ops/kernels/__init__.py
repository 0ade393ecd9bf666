"""Triton kernels, and the one module that chooses between them and PyTorch (`dispatch`)."""
