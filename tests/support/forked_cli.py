"""nettool in processes that are forked from one that has everything imported already.

Starting Python and importing nettool takes a third of a second of processor time, and the system tests start hundreds
of commands. A forked process runs the same `main` with its own descriptors, signals and exit code, and starts in a few
milliseconds. Tests of the start itself, or of what happens between fork and exec, use `subprocess`.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from tests.support.warm_starts import warm_starts
from toolkit.cli.main import main


@cache
def _context() -> Any:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `main` does, but before the server imports numpy
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.support.preloaded_cli"])
    return context


class ForkedCli:
    """A running nettool, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, arguments: Sequence[str], stdin: bytes | None = None, cwd: Path | None = None) -> None:
        """Start it. stdin: the content of its standard input, which is empty by default"""
        input_read, input_write = os.pipe()
        output_read, output_write = os.pipe()
        errors_read, errors_write = os.pipe()
        passed = [Connection(input_read), Connection(output_write), Connection(errors_write)]
        folder = str(cwd or Path.cwd())
        self._process = _context().Process(target=_run, args=(list(arguments), passed, folder, dict(os.environ)))
        self._process.start()
        for connection in passed:
            connection.close()
        self.stdout: IO[bytes] = open(output_read, "rb", buffering=0)  # noqa: SIM115
        self.stderr: IO[bytes] = open(errors_read, "rb", buffering=0)  # noqa: SIM115
        self._writer = threading.Thread(target=_write, args=(input_write, stdin or b""))
        self._writer.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return int(self._process.pid)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        code: int | None = self._process.exitcode
        return code

    def poll(self) -> int | None:
        """Return `returncode`."""
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the fork server waits for it, so it may be gone at any time
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises TimeoutError."""
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"nettool is still running after {timeout} s")
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Read both outputs to their end, wait for the end of the process, and release its descriptors."""
        parts: dict[str, bytes] = {}
        readers = [
            threading.Thread(target=lambda name=name, stream=stream: parts.update({name: stream.read()}))
            for name, stream in (("stdout", self.stdout), ("stderr", self.stderr))
            if not stream.closed
        ]
        for reader in readers:
            reader.start()
        try:
            self.wait(timeout)
        except TimeoutError:
            self.kill()
            raise
        finally:
            for reader in (*readers, self._writer):
                reader.join()
            self.stdout.close()
            self.stderr.close()
        return parts.get("stdout", b""), parts.get("stderr", b"")

    def __enter__(self) -> "ForkedCli":
        return self

    def __exit__(self, *_: object) -> None:
        if self.poll() is None:
            self.kill()
        self.communicate()


def _write(descriptor: int, content: bytes) -> None:
    try:
        with open(descriptor, "wb", buffering=0) as stream:
            view = memoryview(content)
            while view:
                view = view[stream.write(view) :]
    except BrokenPipeError:
        pass  # nettool ended without reading all of it


def _run(arguments: list[str], passed: list[Connection], folder: str, environment: dict[str, str]) -> None:
    """Run in the forked process: replace the descriptors, then be `nettool`."""
    os.setsid()  # away from the terminal at which the tests run: nettool would ask there
    for number, connection in enumerate(passed):
        os.dup2(connection.fileno(), number)
        connection.close()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["nettool", *arguments]
    with warm_starts():
        main()
