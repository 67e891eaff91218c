"""What a session needs is loaded before its clock starts, and before a receiver listens: imports take milliseconds."""

import subprocess
import sys
from pathlib import Path

import pytest

import toolkit

_SEND = """
import sys
import toolkit
from toolkit.api import sending

connect, loaded = sending.connect, set()

def watched(*arguments):
    loaded.update(sys.modules)
    return connect(*arguments)

sending.connect = watched
toolkit.send(sys.argv[3], "127.0.0.1:" + sys.argv[2], transport=sys.argv[1])
print(sorted(set(sys.modules) - loaded))
"""

_RECEIVE = """
import sys
import toolkit

with toolkit.Receiver(sys.argv[1], port=0, sessions=1) as receiver:
    loaded = set(sys.modules)
    print(receiver.address.port, flush=True)
    receiver.wait()
    print(sorted(set(sys.modules) - loaded))
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(70_000))
    return path


@pytest.mark.parametrize("transport", ["tcp", "udp", "auto"])
def test_a_sender_loads_nothing_once_it_connects(transport: str, file: Path, tmp_path: Path) -> None:
    with toolkit.Receiver(tmp_path / "in", port=0) as receiver:
        command = [sys.executable, "-c", _SEND, transport, str(receiver.address.port), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_receiver_loads_nothing_once_it_listens(transport: str, file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RECEIVE, str(tmp_path / "in")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        try:
            assert receiver.stdout is not None
            port = int(receiver.stdout.readline())
            toolkit.send(file, f"127.0.0.1:{port}", transport=transport)
            assert receiver.stdout.read().strip() == "[]"
        finally:
            receiver.kill()
