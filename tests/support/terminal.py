"""nettool at a terminal: a pseudo-terminal that a process is started from, as a user sees it and types at it."""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.cli_process import LIMIT_S, NETTOOL


@dataclass
class AtTerminal:
    """A running nettool, and what its terminal has shown so far."""

    process: "subprocess.Popen[bytes]"
    master: int
    slave: int
    shown: str = ""
    _decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8"))
    """A read may end within a character."""

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read until the terminal has shown `pattern`, and return the match."""
        deadline_s = time.monotonic() + LIMIT_S
        while not (found := re.search(pattern, self.shown)):
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline_s - time.monotonic()))
            piece = self._read() if ready else b""
            assert piece, f"no {pattern!r} in {self.shown!r}"
            self.shown += self._decoder.decode(piece)
        return found

    def type(self, text: str) -> None:
        """Type `text`; control characters are those of a keyboard, for example "\\x04" for the end of input."""
        os.write(self.master, text.encode())

    def end(self) -> tuple[int, str, str]:
        """Wait for the end. Return the exit code, what is on stdout, and what the terminal has shown."""
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        code = self.process.wait(LIMIT_S)
        self.forget_slave()
        while piece := self._read():
            self.shown += self._decoder.decode(piece)
        return code, output.decode(), self.shown

    def forget_slave(self) -> None:
        """Close this process's end: when the other one closes its own, the terminal is at its end."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def _read(self) -> bytes:
        try:
            return os.read(self.master, 1 << 16)
        except OSError:  # EIO: the process has closed its end, and everything is read
            return b""


@contextmanager
def at_terminal(
    *arguments: str | Path,
    lines: int = 24,
    columns: int = 80,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Path | None = None,
    wrapper: Sequence[str] = (),
) -> Iterator[AtTerminal]:
    """Run a command at a terminal of this size, and kill it at the end of the block. Its stdout is a pipe.

    stdin: a file to read instead of the terminal; stderr is then the same pipe as stdout
    wrapper: a command prefix
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    source = os.dup(slave) if stdin is None else os.open(stdin, os.O_RDONLY)
    process = subprocess.Popen(
        [*wrapper, *NETTOOL, *map(str, arguments)],
        stdin=source,
        stdout=subprocess.PIPE,
        stderr=slave if stdin is None else subprocess.STDOUT,
        cwd=cwd,
        env={**variables, "TERM": "xterm-256color", **(environment or {})},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches the process
    )
    os.close(source)
    running = AtTerminal(process, master, slave)
    if stdin is None:  # otherwise the process has the terminal open while it asks only
        running.forget_slave()
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
        os.close(master)
        running.forget_slave()
