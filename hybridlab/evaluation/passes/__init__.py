"""The passes over the data that measures share."""
