"""The table and the claims that a sweep declares."""
