"""What layers cost: parameters, FLOPs, memory, time."""
