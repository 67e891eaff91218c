"""nettool as its users meet it: processes of its own, their exit codes, and what they say."""

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

from toolkit.cli.main import run

NETTOOL = (sys.executable, "-m", "toolkit.cli.main")
LIMIT_S = 30.0
_PR_CAPBSET_DROP = 24
_OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


@dataclass
class Ended:
    """A process that is over."""

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
    """Run it to its end."""
    ended = subprocess.run(
        [*NETTOOL, *map(str, arguments)],
        input=stdin if stdin is not None else b"",
        capture_output=True,
        timeout=LIMIT_S,
        preexec_fn=before,
        cwd=cwd,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def nettool_here(*arguments: str | Path, cwd: Path = Path()) -> Ended:
    """The same without a process, for what ends before it opens a socket: a start takes a third of a second."""
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
    """A nettool that receives, and what it has said so far."""

    process: subprocess.Popen[bytes]
    port: int = 0
    said: str = ""
    _over: Ended | None = field(default=None, repr=False)

    @property
    def target(self) -> str:
        """What a sender calls it."""
        return f"127.0.0.1:{self.port}"

    def wait_for(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Read stderr until `pattern` was there `count` times; the last match."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + LIMIT_S
        while len(found := list(re.finditer(pattern, self.said))) < count:
            ready, _, _ = select.select([self.process.stderr], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self.process.stderr.fileno(), 1 << 16) if ready else b""
            assert piece, f"no {pattern!r} in {self.said!r}"
            self.said += piece.decode()
        return found[count - 1]

    def end(self, number: signal.Signals | None = None) -> Ended:
        """Wait for its end, which a signal may bring about; all that it has said."""
        if self._over is None:
            if number is not None:
                self.process.send_signal(number)
            output, rest = self.process.communicate(timeout=LIMIT_S)
            self._over = Ended(self.process.returncode, output.decode(), self.said + rest.decode())
        return self._over


@contextmanager
def receiver(
    directory: Path,
    *options: str,
    command: str = "recv",
    wrapper: Sequence[str] = (),
    before: Callable[[], None] | None = None,
) -> Iterator[Receiver]:
    """A receiver that listens by now on a port of the system's choice; ended with the block."""
    process = subprocess.Popen(
        [*wrapper, *NETTOOL, command, "--dir", str(directory), "--port", "0", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        preexec_fn=before,
    )
    started = Receiver(process)
    try:
        started.port = int(started.wait_for(r"listening on \S+:([0-9]+) ")[1])
        yield started
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def without_override() -> None:
    """Between fork and exec: even root is held to the permission bits from here on."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in _OVERRIDES:
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "cannot drop a capability")


def complaint(ended: Ended) -> str:
    """The one line on stderr of a command that failed, which is fit for a terminal."""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended
    assert lines[0].startswith("nettool: "), ended
    assert lines[0].isprintable(), ended
    assert "Traceback" not in ended.stderr
    assert "unexpected" not in ended.stderr
    return lines[0]


def everything_below(directory: Path) -> list[str]:
    """Relative paths of all that is there, hidden or not."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
