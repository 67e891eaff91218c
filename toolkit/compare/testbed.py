"""Where the two ends of a trial run, and what lies between them: one interface for every kind of path."""

import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from toolkit.compare.packet_audit import audit
from toolkit.compare.paths import BenchPath
from toolkit.compare.ping import NO_PINGS, Pinger
from toolkit.compare.plan import Setting
from toolkit.compare.probe import probe
from toolkit.compare.records import Probe
from toolkit.compare.worker_process import End
from toolkit.emulator.link import Link

_SETTLE_LIMIT_S = 3.0
_SETTLE_INTERVAL_S = 0.02


class Receiving(Protocol):
    """The receiving end of one trial; a context manager that ends it."""

    def __enter__(self) -> "Receiving":
        """Start it."""

    def __exit__(self, *_: object) -> None:
        """End it, if it has not ended."""

    def await_port(self) -> int:
        """The port that it listens at. Raises TransferError."""

    def result(self, limit_s: float, digest: str = "") -> dict[str, Any]:
        """What came of it; `digest` is the sender's, by which a far end knows it. Raises TransferError."""


class Place(Protocol):
    """A path that is there, with both its ends; a context manager that takes it away.

    host: what the sending end calls the receiving one
    """

    host: str
    path: BenchPath

    def __enter__(self) -> "Place":
        """Make it. Raises NettoolError."""

    def __exit__(self, *_: object) -> None:
        """Take it away."""

    def probe(self) -> Probe | None:
        """Measure it; None where there is nothing to hold it to."""

    def receiver(self, setting: Setting, job: Mapping[str, Any]) -> Receiving:
        """Start a receiving end."""

    def sender(self, setting: Setting, job: Mapping[str, Any]) -> End:
        """Start a sending end."""

    def begin(self, seed: int) -> None:
        """A trial begins: the link starts anew with that seed."""

    def pinger(self) -> Pinger | None:
        """Something to measure the delay with; None where it may not."""

    def account(self, sender: Mapping[str, Any], receiver: Mapping[str, Any], pinger: Pinger | None) -> Any:
        """The record's `ledger` of the trial whose ends are gone; None where nobody counts. The pinger is stopped."""


class Loopback:
    """Both ends on this machine."""

    host = "127.0.0.1"

    def __init__(self, path: BenchPath) -> None:
        self.path = path

    def __enter__(self) -> "Loopback":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def probe(self) -> Probe | None:
        """Nothing was asked for."""
        return None

    def receiver(self, setting: Setting, job: Mapping[str, Any]) -> End:
        """See Place."""
        return End(popen, setting.program, {**job, "bind": self.host})

    def sender(self, setting: Setting, job: Mapping[str, Any]) -> End:
        """See Place."""
        return End(popen, setting.program, job)

    def begin(self, _seed: int) -> None:
        """There is no link."""

    def pinger(self) -> Pinger | None:
        """Its queue is the receiver's socket: a ping passes by it."""
        return None

    def account(self, *_: object) -> None:
        """No link, no ledger."""
        return


class LinkPlace:
    """The two ends of a link on this machine, a LAN or an emulated one."""

    def __init__(self, path: BenchPath) -> None:
        assert path.spec is not None
        self.path = path
        self._link = Link(path.spec)
        self.host = str(self._link.addresses.far)

    def __enter__(self) -> "LinkPlace":
        self._link.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def probe(self) -> Probe:
        """See Place."""
        return probe(self.path, self._link)

    def receiver(self, setting: Setting, job: Mapping[str, Any]) -> End:
        """See Place."""
        return End(self._link.popen_far, setting.program, {**job, "bind": self.host})

    def sender(self, setting: Setting, job: Mapping[str, Any]) -> End:
        """See Place."""
        return End(self._link.popen_near, setting.program, job)

    def begin(self, seed: int) -> None:
        """See Place."""
        self._link.start_clock(seed)

    def pinger(self) -> Pinger:
        """See Place."""
        return Pinger(self._link.socket_near(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP), self.host)

    def account(self, sender: Mapping[str, Any], receiver: Mapping[str, Any], pinger: Pinger | None) -> dict[str, Any]:
        """See Place. Waits until nothing is under way any more, and no ping either."""
        if pinger is not None:
            pinger.stop()
        deadline_s = time.monotonic() + _SETTLE_LIMIT_S
        ledger = self._link.accounting()
        while (ledger.forward.in_flight or ledger.backward.in_flight) and time.monotonic() < deadline_s:
            time.sleep(_SETTLE_INTERVAL_S)
            ledger = self._link.accounting()
        return audit(ledger, sender, receiver, pinger.collect() if pinger is not None else NO_PINGS)


def popen(arguments: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """A process of this machine, where this one is."""
    return subprocess.Popen(arguments, **options)
