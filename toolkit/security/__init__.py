"""Admission, key agreement, and the keys of a session: one implementation for both transports."""
