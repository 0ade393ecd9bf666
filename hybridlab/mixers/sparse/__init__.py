"""Sparse attention, fixed and learned."""
