"""A sweep's table and claims, as its file declares them."""
