"""Congestion controllers. Start at `base.py`, the interface and the registry. See docs/congestion-control.md."""
