"""Any program behind a link: one command near, and, if asked for, one far that is there before it."""

import select
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TextIO

from toolkit.emulator.accounting import LinkAccounting
from toolkit.emulator.link import Link
from toolkit.errors import UsageError, printable

_LISTEN_TIMEOUT_S = 3.0
_FAR_GRACE_S = 3.0
_INTERRUPT_GRACE_S, _TERMINATE_GRACE_S = 1.0, 5.0
_POLL_S = 0.01
_WAITING_STATES = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}  # st in /proc/net/*: listening, unconnected


def run_behind(
    link: Link, command: Sequence[str], far: str | None = None, output: TextIO | None = None
) -> tuple[int, LinkAccounting]:
    """Run `command` at the near end of an open link and return its exit code and the accounting.

    `far` is split as a shell would split it (but no shell runs it), and is started first; `command` follows when
    it listens, and the link's clock begins at 0 then. What `far` prints goes to stderr. An exit code is 128 + n
    for a command that signal n has ended. `output` is where `command` prints, if not to stdout. Raises UsageError
    where a command cannot be run. A KeyboardInterrupt passes through when both commands have ended.
    """
    with ExitStack() as running:
        server = None
        if far is not None:
            server = link.popen_far(_words(far), stdin=subprocess.DEVNULL, stdout=sys.stderr)
            running.callback(_end, server)
            _await_listener(server, far)
        link.start_clock()
        client = link.popen_near(list(command), stdout=output)
        running.callback(_end, client)
        try:
            code = client.wait()
        except KeyboardInterrupt:
            with suppress(subprocess.TimeoutExpired):  # a terminal has interrupted the command as well
                client.wait(_INTERRUPT_GRACE_S)
            raise
        if server is not None:
            with suppress(subprocess.TimeoutExpired):  # a server for one session ends by itself
                server.wait(_FAR_GRACE_S)
        return (128 - code if code < 0 else code), link.accounting()


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--far '{printable(text, 60)}' is no command: {error}") from None
    if not words:
        raise UsageError("--far is empty: give it a command, like --far 'iperf3 -s -1'")
    return words


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let a process end in its own way for a moment, and then have it ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_TERMINATE_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_listener(server: "subprocess.Popen[bytes]", text: str) -> None:
    """Return when `server` has a socket to answer at, or has ended well, or may not want to listen at all."""
    deadline = time.monotonic() + _LISTEN_TIMEOUT_S
    while time.monotonic() < deadline and not _is_listening(server.pid):
        if server.poll() is not None:
            if server.returncode:
                name = printable(text, 60)
                raise UsageError(f"the far command '{name}' has ended with {server.returncode}: try it by itself")
            return
        select.select([], [], [], _POLL_S)


def _is_listening(pid: int) -> bool:
    """Whether anything in the network namespace of `pid` waits for a peer; a link's is empty to begin with."""
    for protocol, state in _WAITING_STATES.items():
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]
            if any(line.split()[3] == state for line in lines):
                return True
    return False
