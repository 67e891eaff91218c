"""nettool: files over TCP and over a reliable protocol on UDP, and figures that tell which serves a path better."""

__version__ = "0.1.0"
