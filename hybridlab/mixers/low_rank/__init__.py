"""Low-rank approximations of attention."""
