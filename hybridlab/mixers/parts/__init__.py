"""What mixers are made of."""
