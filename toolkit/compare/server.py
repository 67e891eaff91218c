"""The other end of `nettool bench remote`: takes what is sent, verifies it, keeps nothing, and tells what it cost.

One port, TCP and UDP. A session that begins as a transfer is one to be measured; one whose first message is a line
of JSON asks something, and gets a line back:

    {"ask": "hello"}     its limits, and the number that the next transfer will have
    {"ask": "result", "digest": "...", "since": NUMBER}
                         the receiver's object of the newest transfer of this host with that digest

Everything is bounded: the bytes and the time of a transfer, how many there are, what is kept to be asked for, and how
long it all lasts.
"""

import json
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from toolkit.channel import (
    Address,
    Channel,
    Extent,
    ExtentSink,
    ExtentSource,
    Statistic,
    Transport,
    TransportOptions,
)
from toolkit.compare.discard import receive_and_discard
from toolkit.compare.worker import peak_memory_bytes
from toolkit.errors import NettoolError, ProtocolError, printable
from toolkit.transfer import TransferResult
from toolkit.transfer.incoming import OPTIMISTIC_BYTES
from toolkit.transfer.server import SessionServer, listen_on_one_port
from toolkit.units import format_seconds, format_size, rate_of

CONTROL_SCHEMA = 2
_FIRST_MESSAGE_S = 10.0
_RESULT_WAIT_S = 10.0
_LAST_QUESTIONS_S = 5.0
_GRACE_S = 5.0
_MAX_AT_A_TIME = 8
_MAX_HOSTS = 64
_MAX_RESULTS = 4
"""Of one host; more than one may measure from there at a time."""


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
        self._results: dict[str, deque[tuple[int, dict[str, Any]]]] = {}
        self._kept = threading.Condition()  # of the results, and of the counts
        self._taken = self._ended = 0
        listeners = listen_on_one_port(transports, address, TransportOptions(idle_timeout_s=15.0))
        self.port = next(iter(listeners.values())).address.port
        self._server = SessionServer(listeners, self._serve, max_sessions=_MAX_AT_A_TIME)

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
        except Exception as unexpected:  # one peer's; the others are served on
            error_text = f"unexpected {type(unexpected).__name__}: {printable(str(unexpected))}"
            self._tell(f"{channel.peer} ({name}): {error_text}", {"error": error_text, "verified": False})
            channel.abort()

    def _answer_untrusted(self, channel: Channel, message: bytes) -> None:
        answer: dict[str, Any] = {"schema": CONTROL_SCHEMA}
        try:
            asked = json.loads(message)
            if asked["ask"] == "hello":
                answer |= {"max_bytes": self._limits.bytes_per_transfer, "next": self._taken + 1}
            elif asked["ask"] == "result":
                answer["result"] = self._result(channel.peer.host, str(asked["digest"]), int(asked["since"]))
            else:
                raise KeyError(asked["ask"])
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            raise ProtocolError("it asks what nobody understands") from None
        channel.send_message(json.dumps(answer).encode())

    def _result(self, host: str, digest: str, since: int) -> dict[str, Any] | None:
        """Of the newest transfer like that; it may be about to end."""

        def newest() -> dict[str, Any] | None:
            kept = reversed(self._results.get(host, ()))
            return next((told for number, told in kept if number >= since and told["digest"] == digest), None)

        with self._kept:
            return self._kept.wait_for(newest, _RESULT_WAIT_S)

    def _keep(self, host: str, number: int, told: dict[str, Any]) -> None:
        with self._kept:
            if host not in self._results and len(self._results) >= _MAX_HOSTS:
                del self._results[next(iter(self._results))]
            self._results.setdefault(host, deque(maxlen=_MAX_RESULTS)).append((number, told))
            self._kept.notify_all()

    def _measure(self, name: str, channel: "_Peeked") -> None:
        with self._kept:
            self._taken += 1
            number = self._taken
        over = threading.Event()
        timer = threading.Timer(self._limits.seconds_per_transfer, over.set)
        timer.daemon = True
        timer.start()
        limit = 0 if self._is_beyond(number) else self._limits.bytes_per_transfer
        cpu_s, started_s = time.process_time(), time.monotonic()
        report, error = TransferResult(""), None
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
        self._keep(channel.peer.host, number, told)
        what = f"{format_size(report.size_bytes)} verified in {format_seconds(seconds)}"
        self._tell(f"{channel.peer} ({name}): {error or what}", told)
        if not self._is_beyond(number):
            self._count_ended()

    def _count_ended(self) -> None:
        """With the last of its transfers nothing is left to do but to tell of it."""
        with self._kept:
            self._ended += 1
            left_s = signal.getitimer(signal.ITIMER_REAL)[0]
            if self._ended == self._limits.transfers and left_s > _LAST_QUESTIONS_S:
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
            raise ProtocolError("the peer sent content of a file that it did not offer")
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
