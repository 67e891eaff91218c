"""The processes at the ends of a trial, and what becomes of those that they start."""

import os
import select
import sys
from pathlib import Path

import pytest

from toolkit.compare.plan import IPERF3
from toolkit.compare.testbed import popen
from toolkit.compare.worker_process import WorkerProcess
from toolkit.compare.worker_protocol import ReceiveJob, SendJob

LIMIT_S = 20.0


@pytest.mark.parametrize("role", ["send", "receive"])
def test_an_outside_program_ends_with_a_trial_that_is_given_up(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    program = tmp_path / IPERF3  # holds the pipe open as long as it lives, and listens where it is asked to
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
        assert os.read(reader, 1) == b""  # nobody holds it any more
    finally:
        os.close(reader)
