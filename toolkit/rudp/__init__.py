"""The reliable-UDP engine: sans-I/O, no socket, clock or randomness of its own. Start reading at `connection.py`."""
