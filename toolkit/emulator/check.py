"""Measure a link before anything is believed that crosses it: what was asked for beside what comes out.

The probes are sockets of this process at both ends, so that no other program is part of the figure. Round trips
are ICMP echoes, which the far kernel answers. Loss is counted over datagrams sent at half the rate, and the rate
at the receiver while more is sent than passes. What a second or two cannot tell (a trace, bursts, scheduled
changes) is shown and not judged.
"""

import math
import select
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from toolkit.emulator.link import Link
from toolkit.emulator.link_process import TUN
from toolkit.emulator.offload import ones_complement_sum
from toolkit.netmodel.spec import LAN, PathSpec
from toolkit.units import format_duration_ns, format_fraction, format_rate

RATE_TOLERANCE = 0.02
RTT_TOLERANCE_NS = 300_000
RTT_TAIL_TOLERANCE_NS = 1_500_000
LOSS_CONFIDENCE_Z = 3.29  # 99.9%, two-sided
CPU_LIMIT = 0.9
_ECHOES, _ECHO_INTERVAL_S, _ECHO_BYTES = 200, 0.005, 84
_FLOW_S = 1.0
_UNLIMITED_BPS = 2e10
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_SEGMENTS = 32
_IP_UDP_BYTES, _ETHERNET_BYTES = 28, 14


class Finding(NamedTuple):
    """One line of the check; `is_met` is None where nothing was asked for, or it cannot be judged in so short."""

    what: str
    asked: str
    measured: str
    is_met: bool | None


@dataclass(frozen=True, slots=True)
class Check:
    """All findings, and the plain sentence that they come to."""

    findings: tuple[Finding, ...]

    @property
    def is_met(self) -> bool:
        """Whether the machine carries what was asked for."""
        return all(finding.is_met is not False for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line."""
        missed = [f"{f.what} {f.measured} instead of {f.asked}" for f in self.findings if f.is_met is False]
        if not missed:
            return "this machine carries this link"
        return f"this machine cannot carry what was asked for: {'; '.join(missed)}"


def check(link: Link) -> Check:
    """Measure an open link in some seconds. Raises NettoolError if it ends meanwhile."""
    link.start_clock()
    findings = list(_round_trips(link))
    spec = link.spec
    for name, path, source, sink in (
        ("near -> far", spec.forward, link.socket_near, link.socket_far),
        ("far -> near", spec.backward, link.socket_far, link.socket_near),
    ):
        address = str(link.addresses.far if name == "near -> far" else link.addresses.near)
        with (
            source(socket.AF_INET, socket.SOCK_DGRAM) as sender,
            sink(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        ):
            flow = Flow(sender, receiver, address, spec.mtu_bytes)
            findings.extend(_loss(link, name, path, flow))
            findings.extend(_rate(link, name, path, flow))
    return Check(tuple(findings))


def _round_trips(link: Link) -> Iterator[Finding]:
    spec = link.spec
    paths = (spec.forward, spec.backward)
    with link.socket_near(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as probe:
        round_trips = sorted(echoes(probe, str(link.addresses.far), spec.rtt_ns))
    is_steady = spec.kind != LAN and not any(p.jitter_ns or p.trace_ms or p.changes or p.reorder for p in paths)
    asked_ns = spec.rtt_ns + sum(_ECHO_BYTES * 8e9 / p.rate_bps for p in paths if p.rate_bps)
    if len(round_trips) < 10:
        yield Finding("RTT", format_duration_ns(asked_ns), f"{len(round_trips)} of {_ECHOES} echoes came back", None)
        return
    median_ns = statistics.median(round_trips)
    p99_ns = round_trips[int(0.99 * len(round_trips))]
    for what, measured_ns, tolerance_ns in (
        ("RTT, median", median_ns, RTT_TOLERANCE_NS),
        ("RTT, p99", p99_ns, RTT_TAIL_TOLERANCE_NS),
    ):
        is_met = -RTT_TOLERANCE_NS < measured_ns - asked_ns <= tolerance_ns if is_steady else None
        asked = "as it is" if spec.kind == LAN else format_duration_ns(asked_ns)
        yield Finding(what, asked, format_duration_ns(measured_ns), is_met)


def echoes(probe: socket.socket, address: str, rtt_ns: int, count: int = _ECHOES) -> list[int]:
    """Send echo requests at a steady pace and return the round-trip times in ns, of those that came back."""
    identifier = 0x6E74
    sent_ns: dict[int, int] = {}
    probe.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    round_trips: list[int] = []
    next_s = time.monotonic()
    deadline_s = next_s + count * _ECHO_INTERVAL_S + 2 * rtt_ns / 1e9 + 0.5
    while (now_s := time.monotonic()) < deadline_s and len(round_trips) < count:
        if now_s >= next_s and len(sent_ns) < count:
            sequence = len(sent_ns)
            header = struct.pack("!BBHHH", 8, 0, 0, identifier, sequence)
            body = bytes(_ECHO_BYTES - 28)
            checksum = 0xFFFF - ones_complement_sum(header + body)
            sent_ns[sequence] = time.time_ns()
            probe.sendto(struct.pack("!BBHHH", 8, 0, checksum, identifier, sequence) + body, (address, 0))
            next_s += _ECHO_INTERVAL_S
        wake_s = next_s if len(sent_ns) < count else deadline_s
        if select.select([probe], [], [], max(0.0, wake_s - time.monotonic()))[0]:
            reply, ancillary, _, _ = probe.recvmsg(2048, 64)
            kind, _, _, its_identifier, sequence = struct.unpack_from("!BBHHH", reply, (reply[0] & 15) * 4)
            if kind == 0 and its_identifier == identifier and sequence in sent_ns:
                # The kernel's stamp, taken on arrival: when this process gets to run is not the link's affair.
                seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2])
                round_trips.append(seconds * 10**9 + nanoseconds - sent_ns[sequence])
    return round_trips


class Flow:
    """Numbered datagrams that fill the MTU, from one socket to another, as super-packets where the kernel can."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, address: str, mtu_bytes: int) -> None:
        self._sender = sender
        self._receiver = receiver
        self.packet_bytes = mtu_bytes
        self._payload_bytes = mtu_bytes - _IP_UDP_BYTES
        self._segments = 1
        try:
            sender.setsockopt(_SOL_UDP, _UDP_SEGMENT, self._payload_bytes)
            receiver.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            self._segments = min(_SEGMENTS, 65_000 // mtu_bytes)
        except OSError:
            pass  # an older kernel: packet by packet
        try:
            receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
        except OSError:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        receiver.setblocking(False)
        receiver.bind((address, 0))
        sender.connect(receiver.getsockname())

    def run(self, rate_bps: float, drain_s: float, *, catches_up: bool, duration_s: float = _FLOW_S) -> "Received":
        """Send at `rate_bps` for `duration_s`, and take what comes until nothing has come for `drain_s`.

        What is late, because this process had to wait for a processor, is sent after all if it `catches_up`.
        """
        packet_s = self.packet_bytes * 8 / rate_bps
        segments = max(1, min(self._segments, int(0.001 / packet_s)))
        burst = bytearray(self._payload_bytes * segments)
        received = Received(self._payload_bytes, self.packet_bytes)
        start_s = time.monotonic()
        end_s = start_s + duration_s
        while (now_s := time.monotonic()) < end_s:
            if not catches_up:
                start_s = max(start_s, now_s - (received.sent + segments) * packet_s)
            if now_s - start_s >= received.sent * packet_s:
                for segment in range(segments):
                    struct.pack_into("!I", burst, segment * self._payload_bytes, received.sent + segment)
                self._sender.send(burst)
                received.sent += segments
            pause_s = start_s + received.sent * packet_s - time.monotonic()
            if select.select([self._receiver], [], [], max(0.0, pause_s))[0]:
                received.take(self._receiver)
        while select.select([self._receiver], [], [], drain_s)[0]:
            received.take(self._receiver)
        return received


class Received:
    """What came of a flow."""

    def __init__(self, payload_bytes: int, packet_bytes: int) -> None:
        self.sent = 0
        self.numbers: set[int] = set()
        self._payload_bytes = payload_bytes
        self._packet_bytes = packet_bytes
        self._first_ns = self._last_ns = 0
        self._bytes = 0

    def take(self, receiver: socket.socket) -> None:
        """Read one (super-)datagram."""
        try:
            data = receiver.recv(1 << 16)
        except BlockingIOError:  # what was there had a wrong checksum
            return
        self._last_ns = time.monotonic_ns()
        offsets = range(0, len(data), self._payload_bytes)
        self.numbers.update(struct.unpack_from("!I", data, offset)[0] for offset in offsets)
        if self._first_ns:  # the first read only starts the watch
            self._bytes += len(offsets) * self._packet_bytes
        else:
            self._first_ns = self._last_ns

    @property
    def rate_bps(self) -> float:
        """Bits of IP packets a second, from the first read to the last."""
        elapsed_ns = self._last_ns - self._first_ns
        return self._bytes * 8e9 / elapsed_ns if elapsed_ns else 0.0


def _loss(link: Link, name: str, path: PathSpec, flow: Flow) -> Iterator[Finding]:
    rate_bps = path.mean_rate_bps or 1e8
    received = flow.run(rate_bps / 2, drain_s(link), catches_up=False)
    share = 1 - len(received.numbers) / received.sent
    asked = 1 - (1 - path.loss) * (1 - path.corrupt)
    spread = LOSS_CONFIDENCE_Z * math.sqrt(asked * (1 - asked) / received.sent) + 1 / received.sent
    is_judged = path.burst is None and path.trace_ms is None and not path.changes
    is_met = abs(share - asked) <= spread if is_judged else None
    shown = format_fraction(asked) if path.burst is None else f"{format_fraction(asked)} and bursts"
    yield Finding(f"loss, {name}", shown, f"{format_fraction(share)} of {received.sent} packets", is_met)


def _rate(link: Link, name: str, path: PathSpec, flow: Flow) -> Iterator[Finding]:
    rate_bps = path.mean_rate_bps
    before = link.accounting()
    received = flow.run(1.2 * rate_bps if rate_bps else _UNLIMITED_BPS, drain_s(link), catches_up=True)
    after = link.accounting()
    asked, is_met = "no limit", None
    if rate_bps:
        if after.emulator != TUN:  # the kernel's disciplines count Ethernet's header, and we count IP packets
            rate_bps *= flow.packet_bytes / (flow.packet_bytes + _ETHERNET_BYTES)
        share, spread = arriving_share(path, max(1, int(rate_bps * _FLOW_S / 8 / flow.packet_bytes)))
        asked = format_rate(rate_bps * share)
        if path.burst is None and path.trace_ms is None and not path.changes:
            is_met = abs(received.rate_bps - rate_bps * share) <= rate_bps * (RATE_TOLERANCE * share + spread)
    yield Finding(f"rate, {name}", asked, format_rate(received.rate_bps), is_met)
    if after.emulator == TUN:
        share = (after.cpu_ns - before.cpu_ns) / (after.duration_ns - before.duration_ns)
        is_enough = share <= CPU_LIMIT if rate_bps else None
        asked = f"under {format_fraction(CPU_LIMIT)} of a core"
        yield Finding(f"CPU, {name}", asked, format_fraction(share), is_enough)


def arriving_share(path: PathSpec, packets: int) -> tuple[float, float]:
    """Of `packets` that the bottleneck sends, how many arrive, copies too: their share, and how far chance takes it."""
    whole = (1 - path.loss) * (1 - path.corrupt) * (1 - (path.burst.mean_loss if path.burst else 0.0))
    share = whole * (1 + path.duplicate)
    variance = max(0.0, whole * (1 + 3 * path.duplicate) - share**2)  # of none, one or two for each
    return share, LOSS_CONFIDENCE_Z * math.sqrt(variance / packets)


def drain_s(link: Link) -> float:
    """The longest silence on a link that still has something under way."""
    spec = link.spec
    slowest_bps = min((p.mean_rate_bps for p in (spec.forward, spec.backward) if p.mean_rate_bps), default=1e9)
    jitter_ns = spec.forward.jitter_ns + spec.backward.jitter_ns
    return 0.2 + (spec.rtt_ns + 10 * jitter_ns) / 1e9 + spec.mtu_bytes * 16 / slowest_bps
