"""The other end of `nettool bench remote`: takes what is sent, verifies it, keeps nothing, and tells what it cost.

One port, TCP and UDP. A session that begins as a transfer is one to be measured; one whose first message is a line
of JSON asks something, and gets a line back:

    {"ask": "hello"}     who this is, its limits; forgets what there was to tell
    {"ask": "result"}    the receiver's object of the transfer that this host has just made

Everything is bounded: the bytes and the time of a transfer, how many there are, and how long it all lasts.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from types import FrameType
from typing import Any

from toolkit.bench.end import peak_memory_bytes
from toolkit.bench.fingerprint import host_fingerprint
from toolkit.bench.sink import receive_and_discard
from toolkit.errors import NettoolError, ProtocolError
from toolkit.transfer.channel import (
    Address,
    Channel,
    Extent,
    ExtentSink,
    ExtentSource,
    Statistic,
    Transport,
    TransportOptions,
)
from toolkit.transfer.report import Report
from toolkit.transfer.server import Server, listen_on_one_port
from toolkit.transfer.storage import OPTIMISTIC_BYTES
from toolkit.units import format_seconds, format_size, rate_of

CONTROL_SCHEMA = 1
_FIRST_MESSAGE_S = 10.0
_RESULT_WAIT_S = 10.0
_LAST_QUESTIONS_S = 5.0
_GRACE_S = 5.0
_MAX_AT_A_TIME = 8
_MAX_HOSTS = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What a serving end takes.

    bytes_per_transfer, seconds_per_transfer: of one
    transfers: how many in all; None for no end but the time's
    seconds:   how long it serves
    """

    bytes_per_transfer: int
    seconds_per_transfer: float
    transfers: int | None
    seconds: float


class _TimeIsUpError(Exception):
    """It has served as long as it was to."""


class MeasuringEnd:
    """Serves from `run` on, until its limits, or until a signal ends the process."""

    def __init__(
        self,
        transports: Mapping[str, Transport],
        address: Address,
        limits: Limits,
        tell: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        """`tell` gets a line for each session that was measured or has failed, and its figures.

        Raises UnreachableError where the port cannot be had.
        """
        self._limits = limits
        self._tell = tell
        self._results: dict[str, Queue[dict[str, Any]]] = {}
        self._lock = threading.Lock()  # of the results, and of the count
        self._taken = 0
        listeners = listen_on_one_port(transports, address, TransportOptions(idle_timeout_s=15.0))
        self.port = next(iter(listeners.values())).address.port
        self._server = Server(listeners, self._serve, max_sessions=_MAX_AT_A_TIME)

    def run(self) -> None:
        """Serve. Only in the main thread: the time is kept by SIGALRM."""

        def end(_number: int, _frame: FrameType | None) -> None:
            raise _TimeIsUpError

        before = signal.signal(signal.SIGALRM, end)
        signal.setitimer(signal.ITIMER_REAL, self._limits.seconds)
        try:
            self._server.run()
        except _TimeIsUpError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self._server.close(_GRACE_S)

    def close(self) -> None:
        """Stop listening, and end what runs. Idempotent."""
        self._server.close(_GRACE_S)

    def _serve(self, name: str, channel: Channel) -> None:
        try:
            peeked = _Peeked(channel)
            first = peeked.peek(_FIRST_MESSAGE_S)
            if first[:1] == b"{":
                self._answer_untrusted(channel, first)
                channel.close()
            else:
                self._measure(name, peeked)
        except NettoolError as error:
            self._tell(f"{channel.peer} ({name}): {error}", {"error": str(error), "verified": False})
            channel.abort()
        except BaseException:
            channel.abort()
            raise

    def _answer_untrusted(self, channel: Channel, message: bytes) -> None:
        try:
            asked = json.loads(message)["ask"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ProtocolError("it asks what nobody understands") from None
        results = self._results_of(channel.peer.host)
        if asked == "hello":
            while not results.empty():
                results.get()
            answer: dict[str, Any] = {"schema": CONTROL_SCHEMA, "host": host_fingerprint()}
            answer["max_bytes"] = self._limits.bytes_per_transfer
        elif asked == "result":
            try:
                answer = {"schema": CONTROL_SCHEMA, "result": results.get(timeout=_RESULT_WAIT_S)}
            except Empty:
                answer = {"schema": CONTROL_SCHEMA, "result": None}
        else:
            raise ProtocolError("it asks what nobody understands")
        channel.send_message(json.dumps(answer).encode())

    def _results_of(self, host: str) -> "Queue[dict[str, Any]]":
        with self._lock:
            if host not in self._results and len(self._results) >= _MAX_HOSTS:
                del self._results[next(iter(self._results))]
            return self._results.setdefault(host, Queue())

    def _measure(self, name: str, channel: "_Peeked") -> None:
        with self._lock:
            self._taken += 1
            number = self._taken
        over = threading.Event()
        timer = threading.Timer(self._limits.seconds_per_transfer, over.set)
        timer.daemon = True
        timer.start()
        limit = 0 if self._is_beyond(number) else self._limits.bytes_per_transfer
        cpu_s, started_s = time.process_time(), time.monotonic()
        report, error = Report(""), None
        try:
            report = receive_and_discard(channel, limit, cancel=over)
            channel.close()
        except NettoolError as failure:
            error = failure
            channel.close()
        finally:
            timer.cancel()
        seconds = time.monotonic() - started_s
        told: dict[str, Any] = {
            "transport": name,
            "peer": str(channel.peer),
            "verified": error is None,
            "bytes": report.size_bytes,
            "seconds": seconds,
            "goodput_bps": rate_of(report.size_bytes, seconds),
            "algorithm": report.algorithm,
            "digest": report.digest,
            "cpu_seconds": time.process_time() - cpu_s,
            "peak_memory_bytes": peak_memory_bytes(),
            **channel.statistics(),
        }
        if error is not None:
            told["error"] = str(error)
        self._results_of(channel.peer.host).put(told)
        what = f"{format_size(report.size_bytes)} verified in {format_seconds(seconds)}"
        self._tell(f"{channel.peer} ({name}): {error or what}", told)
        if self._limits.transfers is not None and number >= self._limits.transfers:
            signal.setitimer(signal.ITIMER_REAL, _LAST_QUESTIONS_S)

    def _is_beyond(self, number: int) -> bool:
        return self._limits.transfers is not None and number > self._limits.transfers


class _Peeked:
    """A channel whose first message can be looked at before it is received; what lands meanwhile is kept."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._first: bytes | None = None
        self._landed: list[tuple[int, int, bytes]] = []
        self._landed_bytes = 0

    def peek(self, timeout_s: float) -> bytes:
        """The first message. Raises ProtocolError when there is none in time."""
        deadline_s = time.monotonic() + timeout_s
        while self._first is None and (left_s := deadline_s - time.monotonic()) > 0:
            self._first = self._channel.receive(self, left_s)
        if self._first is None:
            raise ProtocolError("it connected and said nothing")
        return self._first

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        """As an ExtentSink, for what comes before the first message."""
        self._landed_bytes += len(data)
        if self._landed_bytes > OPTIMISTIC_BYTES:
            raise ProtocolError("the peer sent content that it never offered")
        self._landed.append((file_id, offset, bytes(data)))

    @property
    def peer(self) -> Address:
        """See Channel."""
        return self._channel.peer

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """See Channel."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if sink is not None and self._landed:
            for file_id, offset, data in self._landed:
                sink.write(file_id, offset, memoryview(data))
            self._landed.clear()
            return None
        return self._channel.receive(sink, timeout_s, wake)

    def send_message(self, message: bytes) -> None:
        """See Channel."""
        self._channel.send_message(message)

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        """See Channel."""
        self._channel.send_extent(extent, source)

    def flush(self) -> None:
        """See Channel."""
        self._channel.flush()

    def close(self) -> None:
        """See Channel."""
        self._channel.close()

    def abort(self) -> None:
        """See Channel."""
        self._channel.abort()

    def statistics(self) -> Mapping[str, Statistic]:
        """See Channel."""
        return self._channel.statistics()
