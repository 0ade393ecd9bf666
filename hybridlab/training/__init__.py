"""From the configuration to the record of a run."""
