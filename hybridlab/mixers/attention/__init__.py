"""Full attention."""
