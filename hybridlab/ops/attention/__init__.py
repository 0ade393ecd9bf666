"""Softmax attention in all its forms: tensors in, tensors out."""
