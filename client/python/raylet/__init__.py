"""Ray's programming model on one machine, with nothing between a process and its data."""

__version__ = "2.60.0"
