"""Runs as data: no torch, no W&B, no model code."""
