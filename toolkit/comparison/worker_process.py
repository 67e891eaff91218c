"""The worker processes of a trial, as the process that starts them sees them.

Whatever program moves the bytes, its worker speaks `toolkit.comparison.worker_protocol`: nettool's own, and those in
`toolkit.comparison.peers` that stand for other programs.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.plan import AIOQUIC, IPERF3
from toolkit.comparison.records import CP
from toolkit.comparison.worker_protocol import ReceiveJob, SendJob, WorkerJob, job_line, read_answer, read_result
from toolkit.errors import TransferError, printable

_START_LIMIT_S = 30.0
_EXIT_LIMIT_S = 3.0
_MODULES: Mapping[str | None, str] = {
    None: "toolkit.comparison.worker",
    IPERF3: "toolkit.comparison.peers.iperf3",
    AIOQUIC: "toolkit.comparison.peers.quic",
    CP: "toolkit.comparison.peers.copy",
}

Popen = Callable[..., "subprocess.Popen[bytes]"]


class WorkerProcess:
    """One worker; it is ended when the block is left."""

    def __init__(
        self, popen: Popen, program: str | None, job: WorkerJob | Callable[[], SendJob], name: str | None = None
    ) -> None:
        """`popen` starts a command on the host, or in the namespace, where this endpoint belongs.

        job: for a sender, called when its process has been started: so it loads while the receiver's does, whose port
             the job names
        name: what errors call it; that of its job if None
        """
        self._name = name or ("the receiver" if isinstance(job, ReceiveJob) else "the sender")
        command = [sys.executable, "-m", _MODULES[program]]
        pipe = subprocess.PIPE
        self._received = b""
        process: subprocess.Popen[bytes] | None = None
        try:
            with _deferred_signals():
                process = self._process = popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
            self._write(job_line(job() if callable(job) else job))
        except BaseException:
            if process is not None:
                self.__exit__()
            raise

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        self.stop()
        with suppress(subprocess.TimeoutExpired):
            if process.poll() is None:
                process.terminate()
            process.wait(_EXIT_LIMIT_S)
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    def await_port(self) -> int:
        """The port that a receiver listens on. Raises TransferError."""
        port = read_answer(self._line(_START_LIMIT_S), self._name).get("port")
        if not isinstance(port, int):
            raise TransferError(f"{self._name} did not report its port")
        return port

    def await_ready(self) -> None:
        """Return when a sender has loaded everything. Raises TransferError."""
        if read_answer(self._line(_START_LIMIT_S), self._name).get("ready") is not True:
            raise TransferError(f"{self._name} did not report that it is ready")

    def go(self) -> None:
        """Let a sender connect."""
        self._write("go")

    def set_deadline(self, deadline_s: float) -> None:
        """See ReceiverHandle."""
        self._write(repr(deadline_s))

    def stop(self) -> None:
        """Let the worker give up, or end a transfer that has no end of its own."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def result(self, limit_s: float, _digest: str = "") -> EndpointResult:
        """The worker's result; its `error` says why the transfer failed. Raises TransferError without one."""
        return read_result(self._line(limit_s), self._name)

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # reading its answer will show why it has ended
            self._process.stdin.write(text.encode() + b"\n")

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
            self._process.wait(_EXIT_LIMIT_S)
        os.set_blocking(self._process.stderr.fileno(), False)
        lines = (self._process.stderr.read(1 << 16) or b"").decode(errors="replace").strip().splitlines()
        return printable(lines[-1]) if lines else f"exit code {self._process.poll()}, no message on stderr"


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Handle signals only after the block: an exception of a handler inside Popen would lose the new process.

    Does nothing in other threads than the main one, which handles all signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers if callable(signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda caught, _frame: pending.append(caught))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if pending:
            signal.raise_signal(pending[0])
