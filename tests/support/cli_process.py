"""nettool as users meet it: processes, their exit codes, and their output."""

import ctypes
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.forked_cli import ForkedCli
from toolkit.cli.main import run

NETTOOL = (sys.executable, "-m", "toolkit.cli.main")
LIMIT_S = 60.0  # a guard against hangs, far above what anything takes on a busy machine
_PR_CAPBSET_DROP = 24
_OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@dataclass
class Ended:
    """The outcome of a process."""

    code: int
    stdout: str
    stderr: str

    @property
    def object(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        assert self.stdout.count("\n") == 1, self
        return dict(json.loads(self.stdout))


def nettool(
    *arguments: str | Path,
    stdin: bytes | None = None,
    before: Callable[[], None] | None = None,
    cwd: Path | None = None,
) -> Ended:
    """Run a command to its end.

    before: called between fork and exec, in a process that starts Python anew; others are forked (`forked_cli`)
    """
    words = [str(word) for word in arguments]
    if before is None:
        process = ForkedCli(words, stdin, cwd)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
        return Ended(process.wait(), stdout.decode(), stderr.decode())
    ended = subprocess.run(
        [*NETTOOL, *words],
        input=stdin if stdin is not None else b"",
        capture_output=True,
        timeout=LIMIT_S,
        preexec_fn=before,
        start_new_session=True,  # away from the terminal at which the tests run: nettool would ask there
        cwd=cwd,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def nettool_here(*arguments: str | Path, cwd: Path = Path()) -> Ended:
    """Run a command in this process: the quickest way, for commands that end before they open a socket."""
    stdout, stderr = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with chdir(cwd), redirect_stdout(stdout), redirect_stderr(stderr):
            code = run([*map(str, arguments)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Ended(code, stdout.getvalue(), stderr.getvalue())


@dataclass
class Receiver:
    """A nettool that receives, and what it has printed to stderr so far."""

    process: "subprocess.Popen[bytes] | ForkedCli"
    port: int = 0
    said: str = ""
    _ended: Ended | None = field(default=None, repr=False)

    @property
    def target(self) -> str:
        """The receiver's address for a sender."""
        return f"127.0.0.1:{self.port}"

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Read stderr until it holds `pattern` `count` times, and return the last match."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + LIMIT_S
        while len(found := list(re.finditer(pattern, self.said))) < count:
            ready, _, _ = select.select([self.process.stderr], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self.process.stderr.fileno(), 1 << 16) if ready else b""
            assert piece, f"no {pattern!r} in {self.said!r}"
            self.said += piece.decode()
        return found[count - 1]

    def end(self, number: signal.Signals | None = None) -> Ended:
        """Wait for the end, after sending a signal if `number` is given, and return all of the output."""
        if self._ended is None:
            if number is not None:
                self.process.send_signal(number)
            output, rest = self.process.communicate(timeout=LIMIT_S)
            self._ended = Ended(self.process.wait(), output.decode(), self.said + rest.decode())
        return self._ended


@contextmanager
def receiver(
    directory: Path,
    *options: str,
    command: str = "recv",
    wrapper: Sequence[str] = (),
    before: Callable[[], None] | None = None,
) -> Iterator[Receiver]:
    """Start a receiver that listens on a free port, and kill it at the end of the block.

    wrapper, before: a command prefix, and a function to call between fork and exec; either starts Python anew
    """
    words = [command, "--dir", str(directory), "--port", "0", *options]
    started = Receiver(
        subprocess.Popen(
            [*wrapper, *NETTOOL, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=before,
        )
        if wrapper or before
        else ForkedCli(words)
    )
    process = started.process
    try:
        started.port = int(started.wait_for(r"listening on \S+:([0-9]+) ")[1])
        yield started
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def without_override() -> None:
    """Subject even root to the permission bits; called between fork and exec."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in _OVERRIDES:
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "cannot drop a capability")


def complaint(ended: Ended, listed: int = 0) -> str:
    """Return the one line on stderr of a command that failed, and check that it is fit for a terminal.

    listed: the number of lines before it, each for an entry that was not delivered, or for all that were
    """
    *entries, line = ended.stderr.splitlines()
    assert len(entries) == listed, ended
    assert line.startswith("nettool: "), ended
    assert all(each.isprintable() for each in (*entries, line)), ended
    assert "Traceback" not in ended.stderr
    assert "unexpected" not in ended.stderr
    return line


def everything_below(directory: Path) -> list[str]:
    """Return the relative paths of everything in a directory, hidden files included."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
