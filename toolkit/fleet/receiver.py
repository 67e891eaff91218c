"""The receiving end of a host in a fleet: `nettool serve` under a key that one run has made, as a process.

`python -m toolkit.fleet.receiver` reads its job, one line of JSON, from standard input, so that the key is in no file
and no list of processes. It answers `{"port": ...}` or `{"error": ...}`, and ends with its standard input: with the
worker that has started it, however that ends. Further lines are folders that it then removes.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from toolkit.channel import Address
from toolkit.comparison.server import MeasuringServer, ServerAccess, ServerLimits
from toolkit.errors import NettoolError, TransferError, printable
from toolkit.security.admission import KeyAdmission
from toolkit.security.rehearsal import rehearse
from toolkit.transfer.open_files import raise_descriptor_limit
from toolkit.transports.registry import transport

_MAX_BYTES = 1 << 50
_LIFETIME_S = 30 * 24 * 3600.0
_END_S = 5.0


class ReceiverProcess:
    """The process, as the worker that starts it sees it. Raises TransferError if it cannot listen."""

    def __init__(self, bind: str, port: int, key: bytes, limit_s: float, *, plaintext: bool) -> None:
        """bind, port: where to listen, 0 for any port; limit_s: of one transfer; plaintext: whether to allow it"""
        job = {"bind": bind, "port": port, "key": key.hex(), "limit_s": limit_s, "plaintext": plaintext}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the run, which ends it
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or b'{"error": "the receiver has ended"}')
        except (OSError, ValueError):
            answer = {"error": "the receiver did not start"}
        if "port" not in answer:
            self.close()
            raise TransferError(printable(str(answer.get("error"))))
        self.port = int(answer["port"])

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def remove_at_end(self, folder: Path) -> None:
        """Let it remove this folder when it ends: a worker that is killed removes nothing. Raises OSError."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """End it. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    """Listen and receive until standard input ends."""
    job = json.loads(sys.stdin.readline())
    raise_descriptor_limit()
    admission = KeyAdmission(bytes.fromhex(job["key"]))
    rehearse(admission.method)
    limits = ServerLimits(_MAX_BYTES, job["limit_s"], None, _LIFETIME_S)
    transports = {name: transport(name) for name in ("tcp", "udp")}
    access = ServerAccess(admission, plaintext=job["plaintext"])
    try:
        server = MeasuringServer(transports, Address(job["bind"], job["port"]), limits, lambda *_: None, access)
    except NettoolError as error:
        _answer({"error": str(error)})
        return
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    _answer({"port": server.port})
    server.run()


def _answer(fields: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def _end_with_stdin() -> None:
    for folder in sys.stdin.read().splitlines():
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
