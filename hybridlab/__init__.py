"""hybridlab: ablations of hybrid sequence models, with quality broken down by layer group."""

__version__ = "0.2.0"
