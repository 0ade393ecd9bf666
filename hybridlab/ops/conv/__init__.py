"""Causal, centred and long convolutions."""
