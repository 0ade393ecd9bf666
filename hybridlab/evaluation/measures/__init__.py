"""Measures, one object per file."""
