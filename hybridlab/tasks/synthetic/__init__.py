"""Synthetic tasks with known answers."""
