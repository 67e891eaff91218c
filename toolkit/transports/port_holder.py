"""Which process has a port, for the user who finds it taken."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from toolkit.errors import printable

_MAX_COMMAND: Final = 60


def port_holder(kind: int, port: int) -> str:
    """Return who has this local port, for the middle of a sentence: "nettool recv (process 4711)".

    kind: socket.SOCK_STREAM or SOCK_DGRAM

    The processes of other users are visible to root only.
    """
    import psutil  # only this message needs it

    try:
        held = [
            one
            for one in psutil.net_connections("tcp" if kind == socket.SOCK_STREAM else "udp")
            if one.laddr and one.laddr.port == port and one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
        ]
        pid = next((one.pid for one in held if one.pid), None)
        if pid is None:
            return "a program of another user" if held else "another program"
        words = psutil.Process(pid).cmdline()
    except (psutil.Error, OSError):
        return "another program"
    return f"{printable(_command(words), _MAX_COMMAND) or 'a program'} (process {pid})"


def _command(words: Sequence[str]) -> str:
    """Return a command line as its user typed it, if it is that of a script: without interpreter and directory."""
    is_script = len(words) > 1 and Path(words[0]).name.startswith("python") and not words[1].startswith("-")
    program, *arguments = words[1:] if is_script else words or [""]
    return " ".join([Path(program).name, *arguments])
