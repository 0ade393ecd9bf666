"""Token mixers: `base` is the contract, every other file one family. Nothing is listed here: conf/mixers/ does."""
