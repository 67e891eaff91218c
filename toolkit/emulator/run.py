"""Run a command at the near end of a link and, optionally, a server at the far end that is started first.

This is the body of `nettool link -- COMMAND`; tests and comparisons start their processes themselves.
"""

import os
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from toolkit.emulator.accounting import LinkAccounting
from toolkit.emulator.link import Link
from toolkit.errors import UsageError, printable

_LISTEN_TIMEOUT_S = 3.0
_SERVER_GRACE_S = 3.0
_INTERRUPT_GRACE_S, _TERMINATE_GRACE_S = 1.0, 5.0
_POLL_S = 0.01
_WAITING_STATES = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}  # st in /proc/net/*: listening, unconnected


def run_behind(
    link: Link, command: Sequence[str], far: str | None = None, output: TextIO | None = None
) -> tuple[int, LinkAccounting]:
    """Run `command` at the near end of an open link. Returns its exit code and the packet counters.

    `far` is split into words like a shell command (no shell runs it) and started first; its output goes to stderr. When
    it listens, the clock of the link starts at 0 and `command` runs, with its output on `output` (default: stdout). The
    exit code is 128 + n for a command that signal n has terminated. Raises UsageError if a command cannot be run. A
    KeyboardInterrupt propagates after both commands have ended. At a terminal, Ctrl-C does not raise one: it reaches
    `command`, which decides for itself, as an interpreter or a shell does.
    """
    with ExitStack() as running:
        server = None
        if far is not None:
            # A process group of its own: Ctrl-C is for the command at the near end.
            server = link.popen_far(_split_command(far), stdin=subprocess.DEVNULL, stdout=sys.stderr, process_group=0)
            running.callback(_terminate, server)
            _await_listener(server, far)
        link.start_clock()
        with _leaving_interrupts_to_the_command():  # from before it starts: it may be interrupted at its first step
            client = link.popen_near(list(command), stdout=output)
            running.callback(_terminate, client)
            try:
                code = client.wait()
            except KeyboardInterrupt:
                with suppress(subprocess.TimeoutExpired):  # whoever has interrupted this process may tell the command
                    client.wait(_INTERRUPT_GRACE_S)
                raise
        if server is not None and code != -signal.SIGINT:
            with suppress(subprocess.TimeoutExpired):  # a server for one session exits by itself
                server.wait(_SERVER_GRACE_S)
        return (128 - code if code < 0 else code), link.accounting()


@contextmanager
def _leaving_interrupts_to_the_command() -> Iterator[None]:
    """Ignore SIGINT while the block runs, if it comes from a terminal, which also sends it to the command.

    Not with SIG_IGN, which a process that starts meanwhile would inherit.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or not _is_in_foreground():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _is_in_foreground() -> bool:
    """Whether this process group is the one that the keys of a terminal interrupt."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _split_command(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--far '{printable(text, 60)}' is not a command: {error}") from None
    if not words:
        raise UsageError("--far is empty: give it a command, for example --far 'iperf3 -s -1'")
    return words


def _terminate(process: "subprocess.Popen[bytes]") -> None:
    """Send SIGTERM and, if the process does not exit in time, SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_TERMINATE_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_listener(server: "subprocess.Popen[bytes]", text: str) -> None:
    """Return when `server` listens, has exited with 0, or has had time enough: it may not be a server at all."""
    deadline = time.monotonic() + _LISTEN_TIMEOUT_S
    while time.monotonic() < deadline and not _is_listening(server.pid):
        if server.poll() is not None:
            if server.returncode:
                name = printable(text, 60)
                raise UsageError(
                    f"the far command '{name}' exited with {server.returncode}: run it by itself to see why"
                )
            return
        select.select([], [], [], _POLL_S)


def _is_listening(pid: int) -> bool:
    """Whether any socket in the network namespace of `pid` waits for a peer; a new link has none."""
    for protocol, state in _WAITING_STATES.items():
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]
            if any(line.split()[3] == state for line in lines):
                return True
    return False
