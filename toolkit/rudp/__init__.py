"""The reliable-UDP engine: sans-I/O, without socket, clock or randomness of its own. Start at `connection.py`."""
