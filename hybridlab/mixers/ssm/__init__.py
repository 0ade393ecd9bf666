"""State space models and gated recurrences."""
