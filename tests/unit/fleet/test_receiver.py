"""The receiving end of a host ends with the worker that started it, and removes what that can no longer remove."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.support.background import PATIENCE_S

WORKER = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from toolkit.fleet.receiver import ReceiverProcess
    receiver = ReceiverProcess("127.0.0.1", 0, bytes(32), 5.0, plaintext=False)
    receiver.remove_at_end(Path(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGKILL)
""")


def test_the_files_of_a_killed_worker_are_removed(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "payload").write_bytes(b"x")
    worker = subprocess.run([sys.executable, "-c", WORKER, str(files)], timeout=PATIENCE_S)
    assert worker.returncode == -signal.SIGKILL
    deadline_s = time.monotonic() + PATIENCE_S
    while files.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
