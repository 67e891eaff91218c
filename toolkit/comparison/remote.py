"""A path to another machine, where `nettool serve` is the receiving endpoint or, in reverse, the sending one.

The other machine may start to serve later, and may disappear and come back: each trial waits until it answers.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from toolkit.channel import Address, Channel, PeerProgram, TransportOptions
from toolkit.comparison.endpoint_result import EndpointResult
from toolkit.comparison.machine_load import LoadCounters, read_counters
from toolkit.comparison.paths import BenchPath
from toolkit.comparison.ping import Pinger
from toolkit.comparison.plan import FIXED_RATE
from toolkit.comparison.records import Probe, Setting
from toolkit.comparison.remote_probe import probe_remote
from toolkit.comparison.reverse import ContentOrder, receive_asked, series_untrusted
from toolkit.comparison.sampler import Sampler
from toolkit.comparison.server import CONTROL_SCHEMA
from toolkit.comparison.tcp_metrics import FLUSHED, KEPT, NOT_SAVED, forget
from toolkit.comparison.testbed import popen
from toolkit.comparison.timed import STREAM_NAME, Portions, TimedStream, paced_portions, real_portions
from toolkit.comparison.worker_process import WorkerProcess
from toolkit.comparison.worker_protocol import ReceiveJob, SendJob
from toolkit.errors import ProtocolError, RefusedError, TransferError, UnreachableError, UsageError, printable
from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER
from toolkit.security.credentials import CodeCredential, Credential, KeyCredential, NoCredential
from toolkit.security.key_file import KEY_BYTES
from toolkit.transfer import SendOptions, TransferResult, send
from toolkit.transports.registry import transport
from toolkit.units import format_seconds, format_size

_ASK_TIMEOUT_S = 15.0
"""How long the other machine may take to let this one in, and to answer: it may be busy."""
_LEAST_CONNECT_S = 3.0
_RETRY_S = 0.25
_END_LIMIT_S = 60.0
"""How long the other machine may take to verify a transfer of the probe, all of which has been sent."""
_SERVE = PeerProgram("nettool serve", "--bind 0.0.0.0")
_TEXTS = frozenset(
    {
        "algorithm",
        "authentication",
        "congestion_control",
        "digest",
        "encryption",
        "error",
        "peer",
        "receive_window_limit",
        "transport",
    }
)
"""Fields of a result that may be text; all others are numbers."""
_MAX_FIELDS, _MAX_TEXT, _MAX_FIGURE = 200, 400, 1e18
_NOT_SERVING = "the other machine does not answer as a measuring receiver; run `nettool serve` there"


class RemoteTestbed:
    """See `toolkit.comparison.testbed.Testbed`."""

    def __init__(
        self,
        path: BenchPath,
        address: Address,
        wait_s: float,
        max_size_bytes: int,
        credential: Credential | None = None,
        *,
        needs_plaintext: bool = False,
    ) -> None:
        """`wait_s`: how long to wait for the other machine, at the start and whenever it has disappeared.

        max_size_bytes: size of the largest file that it will have to accept
        credential:     what lets this machine in; a code is used once, for the key that admits all that follows
        needs_plaintext: whether some transfer goes without encryption
        """
        self.path = path
        self.host = address.host
        self._address = address
        self._wait_s = wait_s
        self._max_size_bytes = max_size_bytes
        self._needs_plaintext = needs_plaintext
        self._credential: Credential = credential or NoCredential()
        self._next = 0
        self._rtt_ms: float | None = None

    def __enter__(self) -> "RemoteTestbed":
        self.await_peer()
        return self

    def __exit__(self, *_: object) -> None:
        return

    def await_peer(self) -> None:
        """Return when the other machine answers.

        Raises UnreachableError after `wait_s`, and RefusedError if its limits are too low.
        """
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                left_s = max(_LEAST_CONNECT_S, deadline_s - time.monotonic())
                answer = self._ask({"ask": "hello"}, _ASK_TIMEOUT_S, min(_ASK_TIMEOUT_S, left_s))
                break
            except (UnreachableError, TransferError) as error:
                if time.monotonic() >= deadline_s:
                    raise UnreachableError(
                        f"{self._address} does not serve ({error}); run `nettool serve` there, or raise `wait`"
                    ) from None
            time.sleep(_RETRY_S)
        max_bytes, self._next = (_integer_untrusted(answer, name) for name in ("max_bytes", "next"))
        if isinstance(self._credential, CodeCredential):
            self._credential = KeyCredential(_key_untrusted(answer))
        if self._needs_plaintext and answer.get("plaintext") is not True:
            raise RefusedError(
                f"{self._address} does not allow plaintext: start `nettool serve` there with --plaintext, or leave "
                "+plaintext out of `transports`"
            )
        if self._max_size_bytes > max_bytes:
            raise RefusedError(
                f"{self._address} accepts at most {format_size(max_bytes)}: choose a smaller one with `sizes`, or "
                "start `nettool serve` there with a larger --max-bytes"
            )

    def probe(self) -> Probe:
        """See Testbed. A real path has no specification that it could miss."""
        there, back = (self._fetch, self._send) if self.path.is_reverse else (self._send, self._fetch)
        return probe_remote(self.path, self._rtt_ms, there, back)

    def receiver(self, setting: Setting, _job: ReceiveJob) -> "_RemoteEndpoint":
        """See Testbed. The other machine needs no job: it accepts what arrives, and sends what it is asked for."""
        if setting.program is not None:
            raise UsageError(
                f"{setting.label} needs a server of its own: only nettool's tcp and udp run over a remote path"
            )
        return _RemoteEndpoint(self)

    def sender(self, setting: Setting, job: Callable[[], SendJob]) -> WorkerProcess:
        """See Testbed."""

        def with_key() -> SendJob:
            ready = job()  # the other machine answers, and may have given a key for the user's code
            key = self._credential.key.hex() if isinstance(self._credential, KeyCredential) else None
            return replace(ready, key=key)

        return WorkerProcess(popen, setting.program, with_key, "the receiver" if self.path.is_reverse else None)

    def begin(self, _seed: int) -> None:
        """A real path cannot be restarted."""

    def device(self) -> None:
        """Not known: routes decide, and may change."""
        return

    def forget_path(self) -> str:
        """See Testbed. The machine that sends forgets."""
        if not self.path.is_reverse:
            return forget(self.host)
        answer = self._ask({"ask": "forget"}, _ASK_TIMEOUT_S).get("tcp_metrics")
        if answer not in (NOT_SAVED, FLUSHED, KEPT):
            raise ProtocolError(_NOT_SERVING)
        return str(answer)

    def load_counters(self) -> LoadCounters | None:
        """See Testbed. Of this machine only."""
        return read_counters()

    def pinger(self) -> Pinger | None:
        """A pinger on a ping socket if this user may open one, else on a raw socket, else None."""
        for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
            with suppress(OSError):
                return Pinger(socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP), self.host)
        return None

    def account(self, *_: object) -> None:
        """Nobody counts the packets of a real path."""
        return

    @property
    def port(self) -> int:
        """Port of the other machine's `nettool serve`."""
        return self._address.port

    def result(self, digest: str, limit_s: float) -> EndpointResult:
        """The other machine's result of the transfer that has just ended. Raises TransferError, ProtocolError."""
        answer = self._ask({"ask": "result", "digest": digest, "since": self._next}, limit_s)
        return _result_untrusted(answer.get("result"))

    @property
    def credential(self) -> Credential:
        """What lets this machine in from now on: the key, if it came with a code."""
        return self._credential

    def _send(self, rate_bps: float | None, time_s: float) -> EndpointResult:
        """A `toolkit.comparison.remote_probe.Transfer` to the other machine."""
        congestion_control, portions = _probe_sending(rate_bps)
        options = replace(
            self._access(),
            congestion_control=congestion_control,
            rate_bps=rate_bps,
            backlog_bytes=portions.backlog_bytes,
        )
        channel = transport("udp").connect(self._address, options)
        started_s = time.monotonic()
        make = partial(TimedStream, seed=0, until_s=started_s + time_s, slice_bytes=portions.slice_bytes)
        session = SendOptions(stream_name=STREAM_NAME, open_stream=make)
        sampler = Sampler(started_s, channel.statistics)

        def transfer(cancel: threading.Event) -> TransferResult:
            with sampler:
                return send(channel, ["-"], session, cancel=cancel)

        done = _in_time(channel, transfer, time_s)
        return replace(
            EndpointResult(size_bytes=done.size_bytes).with_statistics(channel.statistics()),
            series=sampler.series(),
        )

    def _fetch(self, rate_bps: float | None, time_s: float) -> EndpointResult:
        """A `toolkit.comparison.remote_probe.Transfer` from the other machine."""
        congestion_control, portions = _probe_sending(rate_bps)
        order = ContentOrder(
            elapsed_s=0.0,
            time_s=time_s,
            size_bytes=None,
            seed=0,
            congestion_control=congestion_control,
            rate_bps=rate_bps,
            backlog_bytes=portions.backlog_bytes,
            slice_bytes=portions.slice_bytes,
        )
        channel = transport("udp").connect(self._address, self._access())
        done = _in_time(channel, lambda cancel: receive_asked(channel, order, cancel), time_s)
        return self.result(done.digest or "", _ASK_TIMEOUT_S)

    def _access(self, connect_s: float = _ASK_TIMEOUT_S) -> TransportOptions:
        return TransportOptions(
            connect_timeout_s=connect_s,
            idle_timeout_s=_ASK_TIMEOUT_S,
            credential=self._credential,
            peer_program=_SERVE,
        )

    def _ask(
        self, question: Mapping[str, object], limit_s: float, connect_s: float = _ASK_TIMEOUT_S
    ) -> Mapping[str, object]:
        channel = transport("tcp").connect(self._address, self._access(connect_s))
        try:
            channel.send_message(json.dumps(question).encode())
            answer = channel.receive(timeout_s=limit_s)
            rtt_ms = channel.statistics().get("rtt_min_ms")
            self._rtt_ms = float(rtt_ms) if rtt_ms else self._rtt_ms
        except BaseException:
            channel.abort()
            raise
        channel.close()
        return _answer_untrusted(answer)


class _RemoteEndpoint:
    """The other machine as the endpoint of one trial that accepts, and in reverse sends."""

    def __init__(self, testbed: RemoteTestbed) -> None:
        self._testbed = testbed

    def __enter__(self) -> "_RemoteEndpoint":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def await_port(self) -> int:
        """The port, as soon as the other machine answers."""
        self._testbed.await_peer()
        return self._testbed.port

    def set_deadline(self, deadline_s: float) -> None:
        """Nothing to do: the two machines share no clock. All content counts, with the time until it was verified."""

    def result(self, limit_s: float, digest: str = "") -> EndpointResult:
        """See ReceiverHandle."""
        return self._testbed.result(digest, limit_s)


def _probe_sending(rate_bps: float | None) -> tuple[str, Portions]:
    """How a transfer of the probe is sent: by which congestion control, and in which portions."""
    if rate_bps is None:
        return DEFAULT_CONTROLLER, real_portions("udp")
    return FIXED_RATE, paced_portions(rate_bps)


def _in_time(channel: Channel, transfer: Callable[[threading.Event], TransferResult], time_s: float) -> TransferResult:
    """Run a transfer of so much time, and close its channel. Raises TransferError if it does not end soon after."""
    is_late = threading.Event()
    timer = threading.Timer(time_s + _END_LIMIT_S, is_late.set)
    timer.daemon = True
    timer.start()
    try:
        done = transfer(is_late)
    except BaseException as error:
        channel.abort()
        if is_late.is_set() and isinstance(error, TransferError):
            raise TransferError(f"a transfer was not verified {format_seconds(_END_LIMIT_S)} after its end") from None
        raise
    finally:
        timer.cancel()
    channel.close()
    return done


def _answer_untrusted(answer: bytes | None) -> Mapping[str, object]:
    """Raises RefusedError for another version's answer, ProtocolError for anything that is not an answer."""
    try:
        fields = json.loads(answer or b"")
        if fields["schema"] != CONTROL_SCHEMA:
            raise RefusedError("the other machine runs another version; install the same nettool on both")
        return dict(fields)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProtocolError(_NOT_SERVING) from None


def _integer_untrusted(answer: Mapping[str, object], name: str) -> int:
    value = answer.get(name)
    if type(value) is not int or not 0 <= value < _MAX_FIGURE:
        raise ProtocolError(_NOT_SERVING)
    return value


def _key_untrusted(answer: Mapping[str, object]) -> bytes:
    """The key that the other machine gives to those whom a code has let in. Raises ProtocolError."""
    text = answer.get("key")
    with suppress(ValueError):
        if isinstance(text, str) and len(key := bytes.fromhex(text)) == KEY_BYTES:
            return key
    raise ProtocolError(_NOT_SERVING)


def _result_untrusted(fields: object) -> EndpointResult:
    """The result, with texts made printable. Raises TransferError without one, ProtocolError if it is invalid."""
    if not isinstance(fields, dict):
        raise TransferError("the other machine has no result of this transfer")
    checked: dict[str, int | float | str] = {}
    series = series_untrusted(fields.pop("series")) if fields.get("series") is not None else None
    for name, value in list(fields.items())[:_MAX_FIELDS]:
        if value is None:  # a figure that its system does not report
            continue
        if name in _TEXTS and isinstance(value, str):
            checked[printable(name, 40)] = printable(value, _MAX_TEXT)
        elif name not in _TEXTS and isinstance(value, int | float) and abs(value) < _MAX_FIGURE:
            checked[printable(name, 40)] = value
        else:
            raise ProtocolError(f"the other machine reported an invalid '{printable(name, 40)}'")
    try:
        return replace(EndpointResult.from_json(checked), series=series)
    except ValueError as error:
        raise ProtocolError(f"the other machine reported an invalid result: {error}") from None
