"""A path to another machine, where `nettool serve` is the receiving end.

The other end may be started later, and may go away and come back: before each trial it is asked whether it is there,
and waited for.
"""

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from toolkit.channel import Address, TransportOptions
from toolkit.compare.paths import BenchPath
from toolkit.compare.ping import Pinger
from toolkit.compare.plan import Setting
from toolkit.compare.records import Probe
from toolkit.compare.server import CONTROL_SCHEMA
from toolkit.compare.testbed import popen
from toolkit.compare.worker_process import End
from toolkit.errors import ProtocolError, RefusedError, TransferError, UnreachableError, UsageError, printable
from toolkit.transports.registry import transport
from toolkit.units import format_duration_ns, format_size

_ASK_TIMEOUT_S = 15.0
_RETRY_S = 0.25
_CONNECT_S = 3.0
_TEXTS = frozenset({"algorithm", "congestion_control", "digest", "error", "peer", "transport"})
_MAX_FIELDS, _MAX_TEXT, _MAX_FIGURE = 200, 400, 1e18


class RemotePlace:
    """See `toolkit.compare.testbed.Place`."""

    def __init__(self, path: BenchPath, address: Address, wait_s: float, most_bytes: int) -> None:
        """`wait_s`: how long the other end is waited for, at the start and whenever it is gone.

        most_bytes: of the largest file that it will have to take
        """
        self.path = path
        self.host = address.host
        self._address = address
        self._wait_s = wait_s
        self._most_bytes = most_bytes
        self._next = 0
        self._rtt_ms: float | None = None

    def __enter__(self) -> "RemotePlace":
        self.await_peer()
        return self

    def __exit__(self, *_: object) -> None:
        return

    def await_peer(self) -> None:
        """Return when the other end answers. Raises UnreachableError after `wait_s`, RefusedError for its limits."""
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                answer = self._ask({"ask": "hello"}, _ASK_TIMEOUT_S)
                break
            except (UnreachableError, TransferError) as error:
                if time.monotonic() >= deadline_s:
                    raise UnreachableError(
                        f"{self._address} does not serve ({error}); run `nettool serve` there, or wait longer "
                        "with --wait"
                    ) from None
            time.sleep(_RETRY_S)
        most_bytes, self._next = (_whole_untrusted(answer, name) for name in ("max_bytes", "next"))
        if self._most_bytes > most_bytes:
            raise RefusedError(
                f"{self._address} takes {format_size(most_bytes)} at the most: ask for a smaller --size, or start "
                "`nettool serve` there with a larger --max-bytes"
            )

    def probe(self) -> Probe:
        """What the first exchanges have told of the path; nothing was asked for."""
        rtt = self._rtt_ms
        return Probe(
            path=self.path.label,
            rate_bps=None,
            rtt_ms={"median": rtt, "p99": rtt} if rtt is not None else None,
            loss=None,
            emulator_cpu_share=None,
            is_met=None,
            text=f"round trip {format_duration_ns(rtt * 1e6)}" if rtt is not None else "not measured",
        )

    def receiver(self, setting: Setting, _job: Mapping[str, Any]) -> "_Serving":
        """See Place."""
        if setting.program is not None:
            raise UsageError(f"{setting.label} needs its own server: over a remote path nettool's tcp and udp run")
        return _Serving(self)

    def sender(self, setting: Setting, job: Mapping[str, Any]) -> End:
        """See Place."""
        return End(popen, setting.program, job)

    def begin(self, _seed: int) -> None:
        """The link is as it is."""

    def pinger(self) -> Pinger | None:
        """By a ping socket where this user may have one, else by a raw one, else none."""
        for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
            with suppress(OSError):
                return Pinger(socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP), self.host)
        return None

    def account(self, *_: object) -> None:
        """The path is not ours to count."""
        return

    @property
    def port(self) -> int:
        """Of the other end."""
        return self._address.port

    def result(self, digest: str, limit_s: float) -> dict[str, Any]:
        """The receiver's object of the transfer that has just ended. Raises TransferError, ProtocolError."""
        told = self._ask({"ask": "result", "digest": digest, "since": self._next}, limit_s)
        return _result_untrusted(told.get("result"))

    def _ask(self, question: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        options = TransportOptions(connect_timeout_s=_CONNECT_S, idle_timeout_s=_ASK_TIMEOUT_S)
        channel = transport("tcp").connect(self._address, options)
        try:
            channel.send_message(json.dumps(question).encode())
            answer = channel.receive(timeout_s=limit_s)
            rtt_ms = channel.statistics().get("rtt_min_ms")
            self._rtt_ms = float(rtt_ms) if rtt_ms else self._rtt_ms
        except BaseException:
            channel.abort()
            raise
        channel.close()
        return _decoded_untrusted(answer)


class _Serving:
    """The receiving end of one trial."""

    def __init__(self, place: RemotePlace) -> None:
        self._place = place

    def __enter__(self) -> "_Serving":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def await_port(self) -> int:
        """Once the other end answers."""
        self._place.await_peer()
        return self._place.port

    def result(self, limit_s: float, digest: str = "") -> dict[str, Any]:
        """See Receiving."""
        return self._place.result(digest, limit_s)


def _decoded_untrusted(answer: bytes | None) -> dict[str, Any]:
    """Raises RefusedError for another version's, ProtocolError for what no nettool says."""
    try:
        told = json.loads(answer or b"")
        if told["schema"] != CONTROL_SCHEMA:
            raise RefusedError("the other end is of another version; install the same nettool at both ends")
        return dict(told)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProtocolError("the other end does not measure; run `nettool serve` there") from None


def _whole_untrusted(answer: Mapping[str, Any], name: str) -> int:
    if not isinstance(answer.get(name), int):
        raise ProtocolError("the other end does not measure; run `nettool serve` there")
    return int(answer[name])


def _result_untrusted(told: Any) -> dict[str, Any]:
    """Figures, and texts under the names that have some. Raises TransferError where there is nothing."""
    if not isinstance(told, dict):
        raise TransferError("the other end has no result of this transfer")
    result: dict[str, Any] = {}
    for name, value in list(told.items())[:_MAX_FIELDS]:
        if value is None:  # where the system does not tell
            continue
        if name in _TEXTS and isinstance(value, str):
            result[name] = printable(value, _MAX_TEXT)
        elif name in _TEXTS or not isinstance(value, int | float) or not abs(value) < _MAX_FIGURE:
            raise ProtocolError(f"the other end tells nonsense of a transfer: {printable(str(name), 40)}")
        else:
            result[printable(name, 40)] = value
    return result
