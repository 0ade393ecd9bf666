"""State space models and element-wise recurrences."""
