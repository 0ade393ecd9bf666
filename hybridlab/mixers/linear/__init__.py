"""Linear attention and delta rules."""
