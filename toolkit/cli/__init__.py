"""The command line: one thin module for each command. Start at `app.py`, the table of commands, or `main.py`."""
