"""The other endpoint of `nettool bench remote`: receives content and discards it, or sends some, and reports the cost.

One port serves TCP and UDP. A session that begins as a transfer is measured. A session whose first message is a JSON
object asks a question. To "send" the answer is a transfer in the other direction (`toolkit.comparison.reverse`), which
is measured too. To others the answer is a JSON object:

    {"ask": "hello"}     the limits, whether plaintext is allowed, and the number that the next transfer will have; to
                         whom a code has let in, also the key for all further connections, so that a code admits a
                         whole campaign
    {"ask": "result", "digest": "...", "since": NUMBER}
                         the EndpointResult of the newest transfer with this host that has that digest
    {"ask": "forget"}    lets TCP here forget what it has learned about the path to this host; the answer says whether
                         it did (`toolkit.comparison.tcp_metrics`)

Everything is bounded: bytes and time of a transfer, the number of transfers, the results kept, and the total time.
"""

import json
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import FrameType

from toolkit.channel import Address, Channel, ExtentSink, Transport, TransportOptions
from toolkit.comparison.discard import receive_and_discard
from toolkit.comparison.endpoint_result import EndpointResult, Samples
from toolkit.comparison.reverse import SEND, ContentOrder, SendingChannel, send_asked
from toolkit.comparison.tcp_metrics import forget
from toolkit.comparison.worker_protocol import peak_memory_bytes
from toolkit.errors import NettoolError, ProtocolError, printable
from toolkit.forwarding_channel import ForwardingChannel
from toolkit.security.admission import Admission, OpenAdmission
from toolkit.transfer import TransferResult
from toolkit.transfer.incoming import EarlyContent
from toolkit.transfer.limits import SessionLimits
from toolkit.transfer.session import closing
from toolkit.transfer.session_server import ConcurrencyLimits, SessionServer, listen_on_one_port
from toolkit.units import format_seconds, format_size, rate_of

CONTROL_SCHEMA = 3
_UNKNOWN = "the peer sent an unknown question"
_FIRST_MESSAGE_S = 10.0
_RESULT_WAIT_S = 10.0
_LAST_QUESTIONS_S = 5.0
_GRACE_S = 5.0
_IDLE_TIMEOUT_S = 15.0
_MAX_SESSIONS = 16
_MAX_SESSIONS_PER_HOST = 8
_MAX_HOSTS = 64
_MAX_RESULTS = 4
"""Results kept for each host; more than one user may measure from it at a time."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a measuring server accepts.

    bytes_per_transfer, seconds_per_transfer: of one transfer
    transfers: number of transfers; None for no limit
    seconds:   how long it serves
    """

    bytes_per_transfer: int
    seconds_per_transfer: float
    transfers: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """Whom a measuring server lets in.

    session_key: 32 bytes; `admission` admits by it those whom a code has let in before
    plaintext:   whether transfers may go without encryption
    """

    admission: Admission = field(default_factory=OpenAdmission)
    session_key: bytes = field(default=b"", repr=False)
    plaintext: bool = False


@dataclass(frozen=True, slots=True)
class ServedSession:
    """One session that was measured, or that failed. `transport` and `peer` are None if nothing could be measured."""

    verified: bool
    result: EndpointResult
    transport: str | None = None
    peer: str | None = None

    def to_json(self) -> dict[str, object]:
        """The `served` object of docs/data-format.md."""
        who = {} if self.transport is None else {"transport": self.transport, "peer": self.peer}
        return {**who, "verified": self.verified, **self.result.to_json()}


class _TimeIsUpError(Exception):
    """The time limit of the server is reached."""


class MeasuringServer:
    """Serves from `run` on, until a limit is reached or a signal ends the process."""

    def __init__(
        self,
        transports: Mapping[str, Transport],
        address: Address,
        limits: ServerLimits,
        on_session: Callable[[str, ServedSession], None],
        access: ServerAccess | None = None,
    ) -> None:
        """`on_session` gets each session that was measured or has failed, with a line that describes it.

        access: whom to let in; everyone if None

        Raises UnreachableError if the port is not available.
        """
        self._limits = limits
        self._on_session = on_session
        self._results: dict[str, deque[tuple[int, EndpointResult]]] = {}
        self._changed = threading.Condition()  # guards the results and the counts
        self._begun = self._ended = 0
        access = access or ServerAccess()
        self._session_key, self._allows_plaintext = access.session_key, access.plaintext
        options = TransportOptions(
            idle_timeout_s=_IDLE_TIMEOUT_S, admission=access.admission, plaintext=access.plaintext
        )
        listeners = listen_on_one_port(transports, address, options)
        self.addresses = [listener.address for listener in listeners.values()]
        self.port = self.addresses[0].port
        self._server = SessionServer(listeners, self._serve, ConcurrencyLimits(_MAX_SESSIONS, _MAX_SESSIONS_PER_HOST))

    def run(self) -> None:
        """Serve. Only in the main thread, because SIGALRM enforces the time limit."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            raise _TimeIsUpError

        previous = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, self._limits.seconds)
        try:
            self._server.run()
        except _TimeIsUpError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            self._server.close(_GRACE_S)

    def close(self) -> None:
        """Stop listening, and end the sessions. Idempotent."""
        self._server.close(_GRACE_S)

    def _serve(self, name: str, channel: Channel) -> None:
        try:
            peeked = _PeekedChannel(channel)
            first = peeked.peek(_FIRST_MESSAGE_S)
            if first[:1] != b"{":
                self._measure(name, channel, partial(self._receive, peeked), "verified")
                return
            question = _question_untrusted(first)
            if question["ask"] == SEND:
                order = ContentOrder.decode_untrusted(question)
                self._measure(name, channel, partial(self._send, channel, order), "sent and verified")
                return
            channel.send_message(json.dumps(self._answer_untrusted(channel, question)).encode())
            channel.close()
        except NettoolError as error:
            self._report_failure(name, channel, str(error))
        except Exception as unexpected:  # a defect that one peer triggers must not end the service for the others
            text = f"unexpected {type(unexpected).__name__}: {printable(str(unexpected))}"
            self._report_failure(name, channel, text)

    def _report_failure(self, name: str, channel: Channel, error: str) -> None:
        self._on_session(f"{channel.peer} ({name}): {error}", ServedSession(False, EndpointResult(error=error)))
        channel.abort()

    def _answer_untrusted(self, channel: Channel, question: Mapping[str, object]) -> Mapping[str, object]:
        answer: dict[str, object] = {"schema": CONTROL_SCHEMA}
        match question["ask"]:
            case "hello":
                answer |= {"max_bytes": self._limits.bytes_per_transfer, "next": self._begun + 1}
                answer["plaintext"] = self._allows_plaintext
                statistics = channel.statistics()
                if statistics.get("authentication") == "code" and statistics.get("encryption") != "none":
                    answer["key"] = self._session_key.hex()
            case "result":
                digest, since = question.get("digest"), question.get("since")
                if not isinstance(digest, str) or not isinstance(since, int):
                    raise ProtocolError(_UNKNOWN)
                result = self._result(channel.peer.host, digest, since)
                answer["result"] = result.to_json() if result is not None else None
            case "forget":
                answer["tcp_metrics"] = forget(channel.peer.host)
            case _:
                raise ProtocolError(_UNKNOWN)
        return answer

    def _result(self, host: str, digest: str, since: int) -> EndpointResult | None:
        """Result of the newest transfer that matches; waits for one that is about to end."""

        def newest() -> EndpointResult | None:
            kept = reversed(self._results.get(host, ()))
            return next((result for number, result in kept if number >= since and result.digest == digest), None)

        with self._changed:
            return self._changed.wait_for(newest, _RESULT_WAIT_S)

    def _keep(self, host: str, number: int, result: EndpointResult) -> None:
        with self._changed:
            if host not in self._results and len(self._results) >= _MAX_HOSTS:
                del self._results[next(iter(self._results))]
            self._results.setdefault(host, deque(maxlen=_MAX_RESULTS)).append((number, result))
            self._changed.notify_all()

    def _measure(
        self, name: str, channel: Channel, transfer: Callable[[int], tuple[TransferResult, Samples | None]], done: str
    ) -> None:
        """Run a transfer that may move so many bytes, and keep its result. `done` is what has become of its content."""
        with self._changed:
            self._begun += 1
            number = self._begun
        result = _measured(
            channel, partial(transfer, 0 if self._is_beyond(number) else self._limits.bytes_per_transfer)
        )
        session = ServedSession(result.error is None, replace(result, series=None), name, str(channel.peer))
        self._keep(channel.peer.host, number, result)
        what = f"{format_size(result.size_bytes or 0)} {done} in {format_seconds(result.seconds or 0.0)}"
        self._on_session(f"{channel.peer} ({name}): {result.error or what}", session)
        if not self._is_beyond(number):
            self._count_ended()

    def _receive(self, channel: Channel, limit_bytes: int) -> tuple[TransferResult, None]:
        limits = SessionLimits(max_bytes=limit_bytes, max_seconds=self._limits.seconds_per_transfer)
        return receive_and_discard(channel, limits, self._server.closing), None

    def _send(self, channel: Channel, order: ContentOrder, limit_bytes: int) -> tuple[TransferResult, Samples]:
        if not isinstance(channel, SendingChannel):
            raise ProtocolError("this transport only receives here")
        return send_asked(channel, order, limit_bytes, self._limits.seconds_per_transfer, self._server.closing)

    def _count_ended(self) -> None:
        """After its last transfer the server stays only to answer questions about it."""
        with self._changed:
            self._ended += 1
            left_s = signal.getitimer(signal.ITIMER_REAL)[0]
            if self._ended == self._limits.transfers and left_s > _LAST_QUESTIONS_S:
                signal.setitimer(signal.ITIMER_REAL, _LAST_QUESTIONS_S)

    def _is_beyond(self, number: int) -> bool:
        return self._limits.transfers is not None and number > self._limits.transfers


def _measured(channel: Channel, transfer: Callable[[], tuple[TransferResult, Samples | None]]) -> EndpointResult:
    """Run a transfer and close its channel; what they cost. A failure is the result's `error`."""
    cpu_s, started_s = time.process_time(), time.monotonic()
    done, series, error = TransferResult(""), None, None
    try:
        with closing(channel):
            done, series = transfer()
    except NettoolError as failure:
        error = failure
    seconds = time.monotonic() - started_s
    result = EndpointResult(
        size_bytes=done.size_bytes,
        seconds=seconds,
        goodput_bps=rate_of(done.size_bytes, seconds),
        algorithm=done.algorithm,
        digest=done.digest,
        cpu_seconds=time.process_time() - cpu_s,
        peak_memory_bytes=peak_memory_bytes(),
        series=series,
    ).with_statistics(channel.statistics())
    return result if error is None else replace(result, error=str(error))


def _question_untrusted(message: bytes) -> Mapping[str, object]:
    """A JSON object that asks something. Raises ProtocolError."""
    try:
        question = json.loads(message)
    except (ValueError, RecursionError):
        question = None
    if not isinstance(question, dict) or "ask" not in question:
        raise ProtocolError(_UNKNOWN)
    return question


class _PeekedChannel(ForwardingChannel):
    """A channel whose first message can be examined before it is received; content that arrives meanwhile is kept."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._first: bytes | None = None
        self._early = EarlyContent()

    def peek(self, timeout_s: float) -> bytes:
        """The first message. Raises ProtocolError if none arrives in time."""
        deadline_s = time.monotonic() + timeout_s
        while self._first is None and (left_s := deadline_s - time.monotonic()) > 0:
            self._first = self._channel.receive(self, left_s)
        if self._first is None:
            raise ProtocolError("the peer connected and sent nothing")
        return self._first

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        """As an ExtentSink, for content that precedes the first message."""
        if data:
            self._early.add(file_id, offset, data)

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """See Channel."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if sink is not None and (early := self._early.take()):
            for file_id, offset, data in early:
                sink.write(file_id, offset, memoryview(data))
            return None
        return super().receive(sink, timeout_s, wake)
