"""One trial: a receiver and a sender, each a process of this very program, over loopback.

Two processes, because two machines do not share an interpreter either: neither end's work may wait for the
other's. Their own JSON is the record; what they complain about is kept where a trial fails, and the
campaign goes on.
"""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from toolkit.bench.matrix import Cell, Turn
from toolkit.bench.record import Trial
from toolkit.bench.workspace import Workspace
from toolkit.errors import NettoolError, TransferError, printable

_LISTENING = re.compile(r"listening on \S*:([0-9]+) ")
_START_LIMIT_S = 30.0
_SLOWEST_BPS = 10e6
_END_LIMIT_S = 5.0


def run_trial(turn: Turn, position: int, place: Workspace) -> Trial:
    """Send the payload once. Never raises for a transfer that fails: the trial says so."""
    destination = place.folder / "received"
    destination.mkdir(exist_ok=True)
    sender: dict[str, Any] = {}
    receiver: dict[str, Any] = {}
    error: str | None = None
    try:
        limit_s = _START_LIMIT_S + place.payload.stat().st_size * 8 / _SLOWEST_BPS
        with _process(_receive_arguments(turn.cell, destination)) as receiving:
            port = _port(receiving)
            with _process(_send_arguments(turn.cell, place.payload, port)) as sending:
                sender = _result(sending, limit_s)
            receiver = _result(receiving, _START_LIMIT_S)
    except NettoolError as caught:
        error = str(caught)
    finally:
        (destination / place.payload.name).unlink(missing_ok=True)
    return Trial(
        block=turn.block,
        position=position,
        cell=turn.cell.label,
        verified=error is None and sender.get("digest") == receiver.get("digest") is not None,
        sender=sender,
        receiver=receiver,
        error=error,
    )


def _receive_arguments(cell: Cell, destination: Path) -> list[str]:
    return [f"{cell.transport}-recv", "--once", "--json", "--port", "0", "--dir", str(destination)]


def _send_arguments(cell: Cell, payload: Path, port: int) -> list[str]:
    chosen = [] if cell.congestion_control is None else ["--cc", cell.congestion_control]
    return [f"{cell.transport}-send", "--json", *chosen, str(payload), f"127.0.0.1:{port}"]


@contextmanager
def _process(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A nettool of its own, ended if it is still there when the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "toolkit.cli.main", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_LIMIT_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _port(receiver: subprocess.Popen[bytes]) -> int:
    """The port that the receiver says it listens on."""
    if receiver.stderr is None:
        raise ValueError("the receiver's stderr is a pipe")
    deadline = time.monotonic() + _START_LIMIT_S
    said = b""
    while not (match := _LISTENING.search(said.decode(errors="replace"))):
        ready, _, _ = select.select([receiver.stderr], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(receiver.stderr.fileno(), 4096) if ready else b""
        if not piece:
            raise TransferError(f"the receiver did not start: {_last_line(said)}")
        said += piece
    return int(match[1])


def _result(process: subprocess.Popen[bytes], limit_s: float) -> dict[str, Any]:
    """The JSON object that `process` ends with. Raises TransferError when it fails or takes too long."""
    try:
        output, said = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise TransferError(f"not done after {limit_s:.0f} s") from None
    if process.returncode:
        raise TransferError(f"exit code {process.returncode}: {_last_line(said)}")
    try:
        result = json.loads(output)
    except ValueError:
        raise TransferError(f"no JSON but {_last_line(output)!r}") from None
    return dict(result)


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return printable(lines[-1]) if lines else "it said nothing"
