"""The worker processes of a trial, and what happens to the programs that they start."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolkit.comparison.plan import IPERF3
from toolkit.comparison.testbed import popen
from toolkit.comparison.worker_process import WorkerProcess
from toolkit.comparison.worker_protocol import ReceiveJob, SendJob

LIMIT_S = 20.0


@pytest.mark.parametrize("role", ["send", "receive"])
def test_an_outside_program_ends_with_its_worker(role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    program = tmp_path / IPERF3  # holds the pipe open while it runs, and listens with -s
    program.write_text(
        f"#!{sys.executable}\nimport signal, socket, sys\nalive = open({str(fifo)!r}, 'w')\nalive.write('.')\n"
        "alive.flush()\nif '-s' in sys.argv:\n"
        "    server = socket.create_server(('127.0.0.1', int(sys.argv[sys.argv.index('-p') + 1])))\nsignal.pause()\n"
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        job: SendJob | ReceiveJob = SendJob("tcp", None, None, "127.0.0.1", 9, None, 1)
        if role == "receive":
            job = ReceiveJob("tcp", None, "127.0.0.1", 1)
        with WorkerProcess(popen, IPERF3, job) as worker:
            if role == "send":
                worker.await_ready()
                worker.go()
            else:
                worker.await_port()
            assert select.select([reader], [], [], LIMIT_S)[0]
            assert os.read(reader, 1) == b"."
        assert select.select([reader], [], [], LIMIT_S)[0]
        assert os.read(reader, 1) == b""  # the program has ended
    finally:
        os.close(reader)


def test_an_interrupt_while_a_worker_starts_ends_the_worker() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def interrupted_popen(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(*arguments, **options))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            WorkerProcess(interrupted_popen, None, ReceiveJob("tcp", None))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert started[0].returncode is not None
