"""nettool: file transfer over TCP and over a reliable protocol on UDP, with an honest comparison of the two."""

__version__ = "0.1.0"
