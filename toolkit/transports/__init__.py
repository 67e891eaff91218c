"""The implementations of `toolkit.channel`: TCP and UDP. Start at `registry.py`, which finds a transport by name."""
