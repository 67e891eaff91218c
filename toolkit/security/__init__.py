"""Identities, key agreement and packet protection, shared by both transports. Nothing is implemented yet."""
