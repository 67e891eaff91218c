"""Virtual time: flows of the real engine over the link's models, as fast as the computer can.

Two hosts for each flow, one path in either direction that all of them share (`toolkit.netmodel.path`), and a list of
who wants to be woken when. Nothing waits, nothing is drawn but from the seed: the same link and flows give the same
packets at the same nanoseconds, on any machine. Time counts from 0, when the link begins.

    Simulator(link, [FlowSpec("bbr", size_bytes=64 << 20)]).run() -> a FlowResult for each flow

A flow begins with its handshake, and its time counts from its first packet. It ends when everything was acknowledged,
or after its duration. Sizes of the link count IP packets: 28 bytes more than the datagram (IPv4 and UDP).
"""

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np

from toolkit.errors import UsageError
from toolkit.netmodel.path import Fate, PathModel, path_models
from toolkit.netmodel.spec import LinkSpec, PathSpec
from toolkit.rudp import wire
from toolkit.rudp.config import Config
from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER
from toolkit.simulator.host import ClientHost, Host, PatternSource, ServerHost
from toolkit.simulator.inbox import Datagrams, Run
from toolkit.simulator.result import FlowResult, QueueingDelay, Sample

IP_UDP_BYTES: Final = 28
RECEIVE_WINDOW_BYTES: Final = 1 << 30
"""What the socket driver's window grows to on a host that keeps up: here every host does."""
DEFAULT_LIMIT_NS: Final = 3600 * 10**9
CORRUPT: Final = "corrupt"
TOO_LARGE: Final = "too large"


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """One transfer from the near end to the far one.

    size_bytes, duration_ns: how much, or for how long, or whichever ends first; one of them is needed
    start_ns:                when its first packet is sent
    extra_delay_ns:          one-way delay of its own in each direction, on top of the link's
    rate_bps:                as in `toolkit.rudp.config.Config`
    validates_address:       the server demands a token first: one round trip more
    """

    congestion_control: str = DEFAULT_CONTROLLER
    size_bytes: int | None = None
    duration_ns: int | None = None
    start_ns: int = 0
    extra_delay_ns: int = 0
    rate_bps: float | None = None
    validates_address: bool = False

    def __post_init__(self) -> None:
        if self.size_bytes is None and self.duration_ns is None:
            raise UsageError("a simulated flow needs a size or a duration: it would never end")


@dataclass(slots=True)
class _Offer:
    """Datagrams on a path: the number of the first there, how many fates are still to come, and when they came."""

    first: int
    open_fates: int
    offered_ns: int
    sender: Host
    datagrams: Datagrams


class _SharedPath:
    """One direction: tells whose datagrams a fate is about. Woken like a host where fates come later (CoDel)."""

    def __init__(self, path: PathModel, spec: PathSpec, mtu_bytes: int, simulator: "Simulator") -> None:
        self.due_ns: int | None = None
        self.queueing = QueueingDelay(spec)
        self._path = path
        self._mtu_bytes = mtu_bytes
        self._simulator = simulator
        self._offers: list[_Offer] = []
        self._firsts: list[int] = []

    def send(self, now_ns: int, host: Host, datagrams: Datagrams) -> None:
        packet_bytes = datagrams.segment_bytes + IP_UDP_BYTES
        if packet_bytes > self._mtu_bytes:
            _lose(host, datagrams, 0, datagrams.count, TOO_LARGE)
            return
        first = self._path.handle_packets(
            now_ns, packet_bytes, datagrams.count, datagrams.last_bytes + IP_UDP_BYTES, datagrams.is_ecn_capable
        )
        self._offers.append(_Offer(first, datagrams.count, now_ns, host, datagrams))
        self._firsts.append(first)
        self.wake(now_ns)
        self._simulator.schedule(self)

    def next_ns(self) -> int | None:
        """When more fates are known."""
        next_ns = self._path.next_fate_ns() if self._offers else None
        return None if next_ns is None else int(-(-next_ns // 1))

    def wake(self, now_ns: int) -> None:
        """Hand out the fates that are known."""
        offers = self._offers
        for fate in self._path.poll_fates(now_ns):
            offer = offers[bisect_right(self._firsts, fate.first) - 1] if len(offers) > 1 else offers[0]
            self._apply(fate, offer)
            if not fate.is_duplicate:
                offer.open_fates -= fate.packets
        done = 0
        while done < len(offers) and not offers[done].open_fates:
            done += 1
        del offers[:done], self._firsts[:done]

    def _apply(self, fate: Fate, offer: _Offer) -> None:
        sender, datagrams = offer.sender, offer.datagrams
        first = fate.first - offer.first
        end = first + fate.packets
        if fate.drop:
            _lose(sender, datagrams, first, end, fate.drop)
            return
        if not fate.is_duplicate:
            size = datagrams.segment_bytes + IP_UDP_BYTES
            self.queueing.add(offer.offered_ns, fate, size)
        if fate.corrupt_at is not None:
            if not fate.is_duplicate:
                _lose(sender, datagrams, first, end, CORRUPT)
            return
        arrival_ns = fate.first_ns + sender.extra_delay_ns
        self._simulator.deliver(sender.peer, Run(datagrams, first, end, arrival_ns, fate.gap_ns, fate.is_marked))


def _lose(host: Host, datagrams: Datagrams, first: int, end: int, reason: str) -> None:
    host.tally.lost_packets[reason] += end - first
    host.tally.lost_payload_bytes += datagrams.payload_bytes(first, end)


class Simulator:
    """Built once, run once. `sample_interval_ns` asks for a `Sample` of every flow at these distances."""

    def __init__(self, link: LinkSpec, flows: Sequence[FlowSpec], sample_interval_ns: int | None = None) -> None:
        self.link = link
        self.now_ns = 0
        self.samples: list[Sample] = []
        forward, backward = path_models(link)
        self._forward = _SharedPath(forward, link.forward, link.mtu_bytes, self)
        self._backward = _SharedPath(backward, link.backward, link.mtu_bytes, self)
        self._events: list[tuple[int, int, Host | _SharedPath]] = []
        self._order = count()
        self._specs = tuple(flows)
        self._sample_interval_ns = sample_interval_ns
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((link.seed, len(flows)))))
        source = PatternSource(link.seed)
        self._ends = [self._make(spec, source, generator) for spec in flows]

    def _make(
        self, spec: FlowSpec, source: PatternSource, generator: np.random.Generator
    ) -> tuple[ClientHost, ServerHost]:
        client_id, server_id, seed = (int(draw) for draw in generator.integers(0, 1 << 63, 3))
        config = Config(
            congestion_control=spec.congestion_control,
            rate_bps=spec.rate_bps,
            max_datagram_bytes=max(self.link.mtu_bytes - IP_UDP_BYTES, wire.MIN_DATAGRAM_BYTES),
            receive_window_bytes=RECEIVE_WINDOW_BYTES,
            seed=seed,
        )
        stop_ns = None if spec.duration_ns is None else spec.start_ns + spec.duration_ns
        client = ClientHost(
            self, config, source, client_id, spec.size_bytes, spec.start_ns, stop_ns, spec.extra_delay_ns
        )
        server = ServerHost(self, config, source, server_id, spec.validates_address, spec.extra_delay_ns)
        client.peer, server.peer = server, client
        self.schedule(client)
        return client, server

    def run(self, limit_ns: int = DEFAULT_LIMIT_NS) -> list[FlowResult]:
        """Until every flow is over, or the clock shows `limit_ns`."""
        open_clients = [client for client, _ in self._ends]
        sample_ns = 0
        events = self._events
        while events and open_clients:
            time_ns, _, woken = heapq.heappop(events)
            if woken.due_ns != time_ns:
                continue  # it was put off, or brought forward
            if time_ns > limit_ns:
                self.now_ns = limit_ns
                break
            while self._sample_interval_ns is not None and sample_ns <= time_ns:
                self._take_samples(sample_ns)
                sample_ns += self._sample_interval_ns
            self.now_ns = time_ns
            woken.due_ns = None
            woken.wake(time_ns)
            self.schedule(woken)
            if isinstance(woken, ClientHost) and woken.over_ns is not None:
                open_clients = [client for client in open_clients if client.over_ns is None]
        return [
            FlowResult.of(spec.congestion_control, spec.start_ns, client, server, self.now_ns)
            for spec, (client, server) in zip(self._specs, self._ends, strict=True)
        ]

    @property
    def queueing(self) -> QueueingDelay:
        """Of the forward path."""
        return self._forward.queueing

    def send(self, now_ns: int, host: Host, datagrams: Datagrams) -> None:
        """As in `toolkit.simulator.host.Network`."""
        (self._forward if host.is_forward else self._backward).send(now_ns, host, datagrams)

    def deliver(self, host: Host, run: Run) -> None:
        """`run` will arrive at `host`."""
        host.inbox.put(run)
        if host.due_ns is None or run.first_ns < host.due_ns:
            self.schedule(host)

    def schedule(self, woken: Host | _SharedPath) -> None:
        """Ask `woken` when it wants to be woken, and note it."""
        next_ns = woken.next_ns()
        if next_ns is None:
            woken.due_ns = None
            return
        next_ns = max(next_ns, self.now_ns)
        if next_ns != woken.due_ns:
            woken.due_ns = next_ns
            heapq.heappush(self._events, (next_ns, next(self._order), woken))

    def _take_samples(self, time_ns: int) -> None:
        for flow, (client, server) in enumerate(self._ends):
            if client.connection is not None and client.over_ns is None:
                stats = client.connection.stats()
                self.samples.append(
                    Sample(
                        time_ns,
                        flow,
                        stats.congestion_window_bytes,
                        stats.bytes_in_flight,
                        stats.pacing_rate_bps,
                        stats.smoothed_rtt_ns,
                        server.landed_bytes,
                        str(stats.congestion.get("phase", "")),
                    )
                )
