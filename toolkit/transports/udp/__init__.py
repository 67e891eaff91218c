"""The UDP transport: drives `toolkit.rudp` with a real clock and socket. Start at `channel.py`, `UdpChannel._pump`."""
