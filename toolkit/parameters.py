"""Typed, length-prefixed parameters (TLVs), by which the formats of both transports and of the session can grow."""
