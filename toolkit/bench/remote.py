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

from toolkit.bench.delay import Pinger
from toolkit.bench.ends import End
from toolkit.bench.matrix import Setting
from toolkit.bench.paths import BenchPath
from toolkit.bench.places import popen
from toolkit.bench.record import Probe
from toolkit.bench.serve import CONTROL_SCHEMA
from toolkit.errors import ProtocolError, RefusedError, TransferError, UnreachableError, UsageError
from toolkit.transfer.channel import Address, TransportOptions
from toolkit.transports.registry import transport
from toolkit.units import format_duration_ns

_ASK_TIMEOUT_S = 15.0
_RETRY_S = 0.25
_CONNECT_S = 3.0


class RemotePlace:
    """See `toolkit.bench.places.Place`."""

    def __init__(self, path: BenchPath, address: Address, wait_s: float) -> None:
        """`wait_s`: how long the other end is waited for, at the start and whenever it is gone."""
        self.path = path
        self.host = address.host
        self._address = address
        self._wait_s = wait_s
        self._rtt_ms: float | None = None

    def __enter__(self) -> "RemotePlace":
        self.await_peer()
        return self

    def __exit__(self, *_: object) -> None:
        return

    def await_peer(self) -> None:
        """Return when the other end answers. Raises UnreachableError after `wait_s`."""
        deadline_s = time.monotonic() + self._wait_s
        while True:
            try:
                self._ask("hello")
                return
            except (UnreachableError, TransferError) as error:
                if time.monotonic() >= deadline_s:
                    raise UnreachableError(
                        f"{self._address} does not serve ({error}); run `nettool serve` there, or wait longer "
                        "with --wait"
                    ) from None
            time.sleep(_RETRY_S)

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

    def result(self) -> dict[str, Any]:
        """The receiver's object of the transfer that has just ended. Raises TransferError."""
        result = self._ask("result").get("result")
        if not isinstance(result, dict):
            raise TransferError("the other end has no result of this transfer")
        return result

    def _ask(self, what: str) -> dict[str, Any]:
        options = TransportOptions(connect_timeout_s=_CONNECT_S, idle_timeout_s=_ASK_TIMEOUT_S)
        channel = transport("tcp").connect(self._address, options)
        try:
            channel.send_message(json.dumps({"ask": what}).encode())
            answer = channel.receive(timeout_s=_ASK_TIMEOUT_S)
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
        """Once the other end answers, and has forgotten what was before."""
        self._place.await_peer()
        return self._place.port

    def result(self, _limit_s: float) -> dict[str, Any]:
        """See End."""
        return self._place.result()


def _decoded_untrusted(answer: bytes | None) -> dict[str, Any]:
    """Raises RefusedError for another version's, ProtocolError for what no nettool says."""
    try:
        told = json.loads(answer or b"")
        if told["schema"] != CONTROL_SCHEMA:
            raise RefusedError("the other end is of another version; install the same nettool at both ends")
        return dict(told)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProtocolError("the other end does not measure; run `nettool serve` there") from None
