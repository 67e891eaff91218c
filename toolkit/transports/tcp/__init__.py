"""The TCP transport: a session over one or more connections. Start at `channel.py`; `connect.py` has `TcpTransport`."""
