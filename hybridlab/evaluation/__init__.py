"""Quality by layer group, cost, and the leak gate."""
