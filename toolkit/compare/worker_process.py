"""The processes at the two ends of a trial, as their starter sees them (`toolkit.compare.worker` is the inside).

Whatever moves the bytes speaks the same few lines: nettool's own end, and the programs in `toolkit.bench.peers`
that stand for others.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from toolkit.compare.plan import AIOQUIC, IPERF3
from toolkit.errors import TransferError, printable

_START_LIMIT_S = 30.0
_END_LIMIT_S = 3.0
_MODULES: Mapping[str | None, str] = {
    None: "toolkit.compare.worker",
    IPERF3: "toolkit.compare.peers.iperf3",
    AIOQUIC: "toolkit.compare.peers.quic",
}

Popen = Callable[..., "subprocess.Popen[bytes]"]


class End:
    """One process; ended when the block is left."""

    def __init__(self, popen: Popen, program: str | None, job: Mapping[str, Any]) -> None:
        """`popen` starts a command at the place where this end is to be; `job` is the process's own."""
        self._name = "the sender" if job["role"] == "send" else "the receiver"
        command: Sequence[str] = [sys.executable, "-m", _MODULES[program]]
        self._process = popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        self._received = b""
        self._tell(json.dumps(job))

    def __enter__(self) -> "End":
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process.stdin is not None:
            process.stdin.close()  # it takes that as its end
        with suppress(subprocess.TimeoutExpired):
            if process.poll() is None:
                process.terminate()
            process.wait(_END_LIMIT_S)
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def await_port(self) -> int:
        """The port that a receiver listens at. Raises TransferError."""
        return int(self._told(self._line(_START_LIMIT_S))["port"])

    def await_ready(self) -> None:
        """Return when a sender has loaded everything. Raises TransferError."""
        if not self._told(self._line(_START_LIMIT_S)).get("ready"):
            raise TransferError(f"{self._name} does not say that it is ready")

    def go(self) -> None:
        """Let a sender connect."""
        self._tell("go")

    def stop(self) -> None:
        """Have it give up, or come to an end if it has none of its own."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def result(self, limit_s: float, _digest: str = "") -> dict[str, Any]:
        """The object that it ends with; its `error` says why it failed. Raises TransferError where there is none."""
        return json.loads(self._line(limit_s))  # type: ignore[no-any-return]

    def _tell(self, text: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # why it has ended is about to be read
            self._process.stdin.write(text.encode() + b"\n")

    def _told(self, line: str) -> dict[str, Any]:
        told = dict(json.loads(line))
        if "error" in told:
            raise TransferError(f"{self._name}: {told['error']}")
        return told

    def _line(self, limit_s: float) -> str:
        assert self._process.stdout is not None
        deadline_s = time.monotonic() + limit_s
        while b"\n" not in self._received:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
            if not ready:
                raise TransferError(f"{self._name} was not done after {limit_s:.0f} s")
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise TransferError(f"{self._name} has ended: {self._last_words()}")
            self._received += piece
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace")

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_LIMIT_S)
        os.set_blocking(self._process.stderr.fileno(), False)
        said = (self._process.stderr.read(1 << 16) or b"").decode(errors="replace").strip().splitlines()
        return printable(said[-1]) if said else f"exit code {self._process.poll()}, and it said nothing"
