"""How tests read the records below a folder, as they were written."""

from hybridlab.records.store import first_made_first, read, run_directories


def read_all(directory):
    """Return every record below `directory`, the first made first."""
    return first_made_first(map(read, run_directories(directory)))
