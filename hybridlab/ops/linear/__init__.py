"""Linear attention and delta rules: the recurrence first, the chunked form under it."""
