"""From the configuration of a stack to the network."""
