"""The figures of a report, as matplotlib objects."""
