"""The lines of JSON that a worker process and the process that starts it exchange on the worker's standard streams.

The worker reads one job from standard input. A receiver answers `{"port": ...}` when it listens. A sender answers
`{"ready": true}` when everything is loaded, and waits for a further line before it connects. Each ends with one
EndpointResult, or with an object whose `error` says why it failed. A further line tells the receiver of a timed trial
when its time is up, in seconds on the monotonic clock. When standard input ends, the worker gives up.

nettool's own worker (`toolkit.comparison.worker`) and those in `toolkit.comparison.peers`, which stand for other
programs, share this module.
"""

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.json_codec import decode
from toolkit.comparison.timed import SLICE_BYTES
from toolkit.errors import NettoolError, TransferError


@dataclass(frozen=True, slots=True)
class SendJob:
    """Connect and send one file, or let the other side send.

    host, port: of the receiver
    payload:    path of the file; None for a stream of zeros without an end, or for `time_s`
    time_s:     how long to send content that the sender makes up from `seed`; None for a file
    backlog_bytes, slice_bytes: of such content, see `toolkit.comparison.timed.Portions`
    plaintext:  whether to ask for a session without encryption
    key:        in hexadecimal digits, if the receiver asks for one
    directory:  where the receiver's file is, for a program that copies it itself
    is_reverse: whether the other side, a `nettool serve`, sends content that it makes up, for `time_s` or of
                `payload_bytes`; this one receives it
    """

    transport: str
    congestion_control: str | None
    rate_bps: float | None
    host: str
    port: int
    payload: str | None
    payload_bytes: int = 0
    time_s: float | None = None
    seed: int = 0
    backlog_bytes: int | None = None
    slice_bytes: int = SLICE_BYTES
    plaintext: bool = False
    key: str | None = field(default=None, repr=False)
    directory: str | None = None
    is_reverse: bool = False


@dataclass(frozen=True, slots=True)
class ReceiveJob:
    """Listen on a port of the system's choice, and receive one transfer.

    bind:      address to listen on; the testbed fills it in
    directory: where to write the file; None to discard the content
    is_timed:  whether a line on standard input will say when to note how much has arrived, on the monotonic clock
    plaintext: whether to allow a session without encryption

    The receiver is open to any sender: it listens for one session, on loopback or in a namespace of its own.
    """

    transport: str
    directory: str | None
    bind: str = ""
    payload_bytes: int = 0
    is_timed: bool = False
    plaintext: bool = False


WorkerJob = SendJob | ReceiveJob
_ROLES: Mapping[str, type[WorkerJob]] = {"send": SendJob, "receive": ReceiveJob}


def job_line(job: WorkerJob) -> str:
    """The job as its line of JSON."""
    role = next(name for name, kind in _ROLES.items() if isinstance(job, kind))
    return json.dumps({"role": role, **asdict(job)})


def read_job() -> WorkerJob:
    """The job on standard input. Raises TransferError."""
    try:
        entry = json.loads(sys.stdin.readline())
        return decode(_ROLES[entry["role"]], entry)
    except (ValueError, KeyError, TypeError) as error:
        raise TransferError(f"a worker was started with an invalid job: {error}") from None


def report_port(port: int) -> None:
    """Report the port that a receiver listens on."""
    _write_line({"port": port})


def report(result: EndpointResult) -> None:
    """Report the result, as the last line."""
    _write_line(result.to_json())


def failure(error: NettoolError) -> EndpointResult:
    """The result of an endpoint that failed with this error."""
    return EndpointResult(error=str(error), exit_code=int(error.exit_code))


def wait_for_go() -> threading.Event:
    """Report that everything is loaded, and return at the next line. See `cancelled_with_stdin`.

    Raises TransferError if standard input ends instead.
    """
    _write_line({"ready": True})
    if not sys.stdin.readline():
        raise TransferError("cancelled before the transfer began")
    return cancelled_with_stdin()


def cancelled_with_stdin(on_line: Callable[[str], None] = lambda _line: None) -> threading.Event:
    """An event that is set when standard input ends. `on_line` gets each further line, in another thread."""
    is_cancelled = threading.Event()

    def watch() -> None:
        for line in sys.stdin:
            on_line(line)
        is_cancelled.set()

    threading.Thread(target=watch, daemon=True).start()
    return is_cancelled


def peak_memory_bytes() -> int | None:
    """Largest resident size of this process since it was loaded; None where the system does not report it."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def read_answer(line: str, who: str) -> Mapping[str, object]:
    """A worker's line as an object. Raises TransferError if it is not one, or if it reports an `error`."""
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise TransferError(f"{who} wrote a line that is not a JSON object")
    if "error" in answer:
        raise TransferError(f"{who}: {answer['error']}")
    return answer


def read_result(line: str, who: str) -> EndpointResult:
    """A worker's last line. Raises TransferError if it is not a result."""
    try:
        return decode(EndpointResult, json.loads(line))
    except ValueError as error:
        raise TransferError(f"{who} reported an invalid result: {error}") from None


def _write_line(answer: Mapping[str, object]) -> None:
    try:
        print(json.dumps(answer, allow_nan=False), flush=True)  # noqa: T201
    except BrokenPipeError:
        os._exit(1)  # the process that started this one is gone
