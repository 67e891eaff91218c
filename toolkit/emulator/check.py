"""Measure an open link and compare it with its specification.

Sockets of this process at both ends do the measuring, so that no other program affects the figures:

- round trips by ICMP echo (`toolkit.emulator.icmp`),
- loss by numbered datagrams at half the rate,
- the rate at the receiver while the sender offers more than the bottleneck passes.

A second or two cannot judge a delivery trace, loss bursts or scheduled changes: those figures are shown and not judged.
Where such a figure was specified, the check claims nothing about the link.
`nettool link --check` uses FULL_CHECK; a comparison measures each of its links with QUICK_CHECK first.
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

from toolkit.emulator.accounting import NETEM, TUN, LinkAccounting
from toolkit.emulator.icmp import ECHO_PACKET_BYTES, EchoProbe
from toolkit.emulator.link import Link
from toolkit.kernel_timestamps import arrival_time_ns, enable_timestamps
from toolkit.netmodel.spec import LAN, LinkSpec, PathSpec
from toolkit.units import format_duration_ns, format_fraction, format_rate

LOSS_CONFIDENCE_Z = 3.29  # 99.9%, two-sided
CPU_LIMIT = 0.9
"""Share of a core that the emulator may use; above it, delays are no longer exact."""
_STRAY_PACKETS = 2  # that the hosts may lose in a measurement, or in its first and last packets
_MIN_ECHOES = 10
_ECHO_INTERVAL_S = 0.005
_ECHO_IDENTIFIER = 0x6E74
_UNLIMITED_BPS = 2e10  # offered to a link without a bottleneck
_NO_RATE_LOSS_BPS = 1e8
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SO_RCVBUFFORCE = 33
_RECEIVE_BUFFER_BYTES = 1 << 24
_MAX_SEGMENTS, _MAX_BURST_BYTES, _MAX_BURST_S = 32, 65_000, 0.001
_IP_UDP_BYTES, _ETHERNET_BYTES = 28, 14


class CheckPlan(NamedTuple):
    """How long to measure, and by how much a figure may miss its specification.

    is_two_way:             measure loss and rate from far to near as well
    rate_tolerance:         relative
    rtt_tolerance_ns:       of the median
    rtt_tail_tolerance_ns:  of the 99th percentile; None: do not judge it
    """

    echoes: int
    flow_s: float
    is_two_way: bool
    rate_tolerance: float
    rtt_tolerance_ns: int
    rtt_tail_tolerance_ns: int | None


FULL_CHECK = CheckPlan(200, 1.0, True, 0.02, 300_000, 1_500_000)
QUICK_CHECK = CheckPlan(100, 0.6, False, 0.05, 1_000_000, None)
"""A shorter look has wider tolerances."""


class Finding(NamedTuple):
    """One line of a check.

    is_met:       None where the figure cannot be judged, or nothing was requested
    is_requested: whether the link has to meet it
    """

    metric: str
    requested: str
    measured: str
    is_met: bool | None
    is_requested: bool = True

    def to_json(self) -> dict[str, object]:
        """The finding as `nettool link --check --json` prints it."""
        return {"what": self.metric, "asked": self.requested, "measured": self.measured, "is_met": self.is_met}


class DirectionFigures(NamedTuple):
    """What one direction did: `loss` as a fraction; `cpu_share` of a core by the emulator, None without one."""

    loss: float
    rate_bps: float
    cpu_share: float | None


@dataclass(frozen=True, slots=True)
class LinkCheck:
    """The figures of a check and how they compare with the specification.

    round_trips_ns: of the answered echo requests
    directions:     forward, and backward if the plan was two-way
    """

    findings: tuple[Finding, ...]
    round_trips_ns: tuple[int, ...]
    directions: tuple[DirectionFigures, ...]

    @property
    def is_met(self) -> bool | None:
        """Whether the link is as specified: False if a finding misses it, else None if not all is judged."""
        if any(finding.is_met is False for finding in self.findings):
            return False
        return None if self.not_judged else True

    @property
    def not_judged(self) -> list[str]:
        """The metrics that were requested and could not be judged."""
        return [finding.metric for finding in self.findings if finding.is_requested and finding.is_met is None]

    @property
    def verdict(self) -> str:
        """The result in one line."""
        missed = [f"{f.metric} {f.measured} instead of {f.requested}" for f in self.findings if f.is_met is False]
        if missed:
            return f"this machine cannot carry the requested link: {'; '.join(missed)}"
        if self.not_judged:
            return f"undecided: this check cannot judge {'; '.join(self.not_judged)}"
        return "this machine carries this link"


def check(link: Link, plan: CheckPlan = FULL_CHECK) -> LinkCheck:
    """Measure an open link for a few seconds. Raises NettoolError if the link closes before the end."""
    link.start_clock()
    spec = link.spec
    with link.socket_near(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        probe = EchoProbe(sock, str(link.addresses.far), _ECHO_IDENTIFIER)
        _send_echoes(probe, plan.echoes, spec.rtt_ns)
    findings = list(judge_round_trips(spec, probe.round_trips_ns, plan))
    directions = []
    for name, path, open_sender, open_receiver, address in (
        ("near -> far", spec.forward, link.socket_near, link.socket_far, link.addresses.far),
        ("far -> near", spec.backward, link.socket_far, link.socket_near, link.addresses.near),
    )[: 2 if plan.is_two_way else 1]:
        with (
            open_sender(socket.AF_INET, socket.SOCK_DGRAM) as sender,
            open_receiver(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        ):
            flow = DatagramFlow(sender, receiver, str(address), spec.mtu_bytes)
            figures, found = _measure_direction(link, name, path, flow, plan)
        directions.append(figures)
        findings.extend(found)
    return LinkCheck(tuple(findings), tuple(probe.round_trips_ns), tuple(directions))


def _send_echoes(probe: EchoProbe, count: int, rtt_ns: int) -> None:
    """Send `count` requests at a steady pace and collect the replies."""
    next_s = time.monotonic()
    deadline_s = next_s + count * _ECHO_INTERVAL_S + 2 * rtt_ns / 1e9 + 0.5
    while (now_s := time.monotonic()) < deadline_s and len(probe.round_trips_ns) < count:
        if now_s >= next_s and probe.sent < count:
            probe.send()
            next_s += _ECHO_INTERVAL_S
        wake_s = next_s if probe.sent < count else deadline_s
        probe.receive(max(0.0, wake_s - time.monotonic()))


def _measure_direction(
    link: Link, name: str, path: PathSpec, flow: "DatagramFlow", plan: CheckPlan
) -> tuple[DirectionFigures, list[Finding]]:
    rate_bps = path.mean_rate_bps
    quiet_s = _quiet_period_s(link.spec)
    paced = flow.run((rate_bps or _NO_RATE_LOSS_BPS) / 2, plan.flow_s, quiet_s, catches_up=False)
    before = link.accounting()
    saturating = flow.run(1.2 * rate_bps if rate_bps else _UNLIMITED_BPS, plan.flow_s, quiet_s, catches_up=True)
    after = link.accounting()
    cpu_share = _cpu_share(before, after) if after.emulator == TUN else None
    figures = DirectionFigures(1 - len(paced.numbers) / paced.sent, saturating.rate_bps, cpu_share)
    if rate_bps and after.emulator == NETEM:  # its tbf counts the Ethernet header as well
        rate_bps *= flow.packet_bytes / (flow.packet_bytes + _ETHERNET_BYTES)
    findings = [
        judge_loss(name, path, figures.loss, paced.sent),
        judge_rate(name, path, rate_bps, figures.rate_bps, flow.packet_bytes, plan),
    ]
    if cpu_share is not None:
        limit = f"under {format_fraction(CPU_LIMIT)} of a core"
        is_met = cpu_share <= CPU_LIMIT if rate_bps else None
        findings.append(Finding(f"CPU, {name}", limit, format_fraction(cpu_share), is_met, bool(rate_bps)))
    return figures, findings


def _cpu_share(before: LinkAccounting, after: LinkAccounting) -> float:
    return (after.cpu_ns - before.cpu_ns) / max(1, after.duration_ns - before.duration_ns)


def _quiet_period_s(spec: LinkSpec) -> float:
    """After this long without a packet, nothing is in flight any more."""
    slowest_bps = min((p.mean_rate_bps for p in (spec.forward, spec.backward) if p.mean_rate_bps), default=1e9)
    jitter_ns = spec.forward.jitter_ns + spec.backward.jitter_ns
    return 0.2 + (spec.rtt_ns + 10 * jitter_ns) / 1e9 + spec.mtu_bytes * 16 / slowest_bps


# Judgement: pure functions of a specification and a figure


def judge_round_trips(spec: LinkSpec, round_trips_ns: list[int], plan: CheckPlan) -> Iterator[Finding]:
    """Median and, if the plan has a tolerance for it, 99th percentile against propagation and transmission."""
    paths = (spec.forward, spec.backward)
    requested_ns = spec.rtt_ns + sum(ECHO_PACKET_BYTES * 8e9 / p.rate_bps for p in paths if p.rate_bps)
    is_requested = spec.kind != LAN
    is_changing = any(path.changes for path in paths)
    requested = _at_first(format_duration_ns(requested_ns), is_changing) if is_requested else "no emulated delay"
    if len(round_trips_ns) < _MIN_ECHOES:
        yield Finding("RTT", requested, f"{len(round_trips_ns)} of {plan.echoes} echoes answered", None, is_requested)
        return
    is_steady = is_requested and not any(p.jitter_ns or p.trace_ms or p.changes or p.reorder for p in paths)
    ordered = sorted(round_trips_ns)
    figures = [("RTT, median", statistics.median(ordered), plan.rtt_tolerance_ns)]
    if plan.rtt_tail_tolerance_ns is not None:
        figures.append(("RTT, p99", ordered[int(0.99 * len(ordered))], plan.rtt_tail_tolerance_ns))
    for metric, measured_ns, tolerance_ns in figures:
        is_met = -plan.rtt_tolerance_ns < measured_ns - requested_ns <= tolerance_ns if is_steady else None
        yield Finding(metric, requested, format_duration_ns(measured_ns), is_met, is_requested)


def judge_loss(name: str, path: PathSpec, loss: float, packets: int) -> Finding:
    """The loss among `packets` against the binomial interval of the requested one."""
    expected = 1 - (1 - path.loss) * (1 - path.corrupt)
    spread = LOSS_CONFIDENCE_Z * math.sqrt(expected * (1 - expected) / packets) + _STRAY_PACKETS / packets
    requested = format_fraction(expected) if path.burst is None else f"{format_fraction(expected)} and bursts"
    is_met = abs(loss - expected) <= spread if _is_stationary(path) else None
    requested = _at_first(requested, bool(path.changes))
    return Finding(f"loss, {name}", requested, f"{format_fraction(loss)} of {packets} packets", is_met)


def judge_rate(
    name: str, path: PathSpec, rate_bps: float | None, measured_bps: float, packet_bytes: int, plan: CheckPlan
) -> Finding:
    """The rate at the receiver against the share of the bottleneck rate `rate_bps` that the path lets through."""
    if not rate_bps:
        return Finding(f"rate, {name}", "no limit", format_rate(measured_bps), None, is_requested=False)
    share, spread = expected_arrival_share(path, max(1, int(rate_bps * plan.flow_s / 8 / packet_bytes)))
    is_near = abs(measured_bps - rate_bps * share) <= rate_bps * (plan.rate_tolerance * share + spread)
    is_met = is_near if _is_stationary(path) else None
    requested = _at_first(format_rate(rate_bps * share), bool(path.changes))
    return Finding(f"rate, {name}", requested, format_rate(measured_bps), is_met)


def _at_first(requested: str, is_changing: bool) -> str:
    """What was requested; where changes are scheduled, of the link before the first of them."""
    return f"{requested} at first" if is_changing else requested


def _is_stationary(path: PathSpec) -> bool:
    """Whether a short measurement sees the path's long-run loss and rate."""
    return path.burst is None and path.trace_ms is None and not path.changes


def expected_arrival_share(path: PathSpec, packets: int) -> tuple[float, float]:
    """Intact arrivals, copies included, per packet that the bottleneck sends: mean, and spread over `packets`."""
    intact = (1 - path.loss) * (1 - path.corrupt) * (1 - (path.burst.mean_loss if path.burst else 0.0))
    share = intact * (1 + path.duplicate)
    variance = max(0.0, intact * (1 + 3 * path.duplicate) - share**2)  # each packet arrives 0, 1 or 2 times
    return share, LOSS_CONFIDENCE_Z * math.sqrt(variance / packets)


# Measurement


class DatagramFlow:
    """Numbered datagrams that fill the MTU, sent as super-packets where the kernel segments UDP."""

    def __init__(self, sender: socket.socket, receiver: socket.socket, address: str, mtu_bytes: int) -> None:
        """Bind `receiver` to `address` and connect `sender` to it; the caller closes both."""
        self.packet_bytes = mtu_bytes
        self._sender = sender
        self._receiver = receiver
        self._payload_bytes = mtu_bytes - _IP_UDP_BYTES
        self._segments = 1
        try:
            sender.setsockopt(_SOL_UDP, _UDP_SEGMENT, self._payload_bytes)
            receiver.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            self._segments = min(_MAX_SEGMENTS, _MAX_BURST_BYTES // mtu_bytes)
        except OSError:
            pass  # before Linux 5.0: packet by packet
        try:
            receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except OSError:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        enable_timestamps(receiver)
        receiver.setblocking(False)
        receiver.bind((address, 0))
        sender.connect(receiver.getsockname())

    def run(self, rate_bps: float, duration_s: float, quiet_s: float, *, catches_up: bool) -> "FlowMeasurement":
        """Send at `rate_bps` for `duration_s`, and receive until nothing has arrived for `quiet_s`.

        When the scheduler has held this process up, `catches_up` decides whether the missed datagrams are still sent.
        """
        packet_s = self.packet_bytes * 8 / rate_bps
        segments = max(1, min(self._segments, int(_MAX_BURST_S / packet_s)))
        burst = bytearray(self._payload_bytes * segments)
        result = FlowMeasurement(self._payload_bytes, self.packet_bytes)
        start_s = time.monotonic()
        end_s = start_s + duration_s
        while (now_s := time.monotonic()) < end_s:
            if not catches_up:
                start_s = max(start_s, now_s - (result.sent + segments) * packet_s)
            if now_s - start_s >= result.sent * packet_s:
                for segment in range(segments):
                    struct.pack_into("!I", burst, segment * self._payload_bytes, result.sent + segment)
                self._sender.send(burst)
                result.sent += segments
            pause_s = start_s + result.sent * packet_s - time.monotonic()
            if select.select([self._receiver], [], [], max(0.0, pause_s))[0]:
                result.receive(self._receiver)
        while select.select([self._receiver], [], [], quiet_s)[0]:
            result.receive(self._receiver)
        return result


class FlowMeasurement:
    """What a flow sent and received. Arrival times are the kernel's."""

    def __init__(self, payload_bytes: int, packet_bytes: int) -> None:
        self.sent = 0
        self.numbers: set[int] = set()
        self._payload_bytes = payload_bytes
        self._packet_bytes = packet_bytes
        self._first_ns = self._last_ns = 0
        self._bytes = 0

    def receive(self, receiver: socket.socket) -> None:
        """Read one (super-)datagram."""
        try:
            data, ancillary, _, _ = receiver.recvmsg(1 << 16, 128)
        except BlockingIOError:  # a wrong checksum: the kernel discarded the datagram
            return
        offsets = range(0, len(data), self._payload_bytes)
        self.numbers.update(struct.unpack_from("!I", data, offset)[0] for offset in offsets)
        self._last_ns = arrival_time_ns(ancillary) or self._last_ns
        if self._first_ns:  # the first datagram only starts the clock
            self._bytes += len(offsets) * self._packet_bytes
        else:
            self._first_ns = self._last_ns

    @property
    def rate_bps(self) -> float:
        """Bits of IP packets per second between the first and the last arrival."""
        elapsed_ns = self._last_ns - self._first_ns
        return self._bytes * 8e9 / elapsed_ns if elapsed_ns else 0.0
