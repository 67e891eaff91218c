"""Simulate flows of the real engine over the link models in virtual time.

Each flow has two hosts (`toolkit.simulator.host`). All flows share one path in each direction
(`toolkit.netmodel.path`). The simulator keeps a heap of wake-up times and jumps from one to the next. Every random draw
comes from the seed: the same link and flows give the same packets at the same nanoseconds on any machine. Time 0 is the
start of the link.

    run(Experiment(link, [FlowSpec("bbr", size_bytes=64 << 20)])) -> ExperimentResult

A flow starts with its handshake, and its time counts from its first packet. It ends when every byte is acknowledged or
when its duration is over. Link sizes count IP packets: 28 bytes more than the datagram (IPv4 and UDP headers).
"""

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np

from toolkit.errors import UsageError
from toolkit.netmodel.ideal import ideal_bytes, ideal_ns
from toolkit.netmodel.path import Fate, PathModel, path_models
from toolkit.netmodel.spec import LinkSpec, PathSpec
from toolkit.rudp import wire
from toolkit.rudp.config import Config
from toolkit.rudp.congestion.base import DEFAULT_CONTROLLER, PathMemory
from toolkit.rudp.flow_control import WANTED_SOCKET_BUFFER_BYTES, initial_window_bytes
from toolkit.simulator.host import ClientHost, Host, PatternSource, ServerHost
from toolkit.simulator.inbox import DatagramRun, Datagrams
from toolkit.simulator.result import ExperimentResult, FlowResult, FlowSample, QueueingDelay, jain_index_of
from toolkit.units import rate_of, to_seconds

IP_UDP_BYTES: Final = 28
RECEIVE_WINDOW_BYTES: Final = initial_window_bytes(WANTED_SOCKET_BUFFER_BYTES)
"""The initial receive window of the socket driver on a host whose system permits the socket buffer that it asks for."""
DEFAULT_LIMIT_NS: Final = 3600 * 10**9
CORRUPT: Final = "corrupt"
TOO_LARGE: Final = "too large"


@dataclass(frozen=True, slots=True)
class FlowSpec:
    """One transfer from near to far.

    size_bytes, duration_ns: the flow ends at whichever comes first; one of them is required
    start_ns:                when its first packet is sent
    extra_delay_ns:          additional one-way delay of this flow in each direction
    rate_bps:                as in `toolkit.rudp.config.Config`
    validates_address:       the client has no token, so the server validates its address, which costs one round trip
    host_mtu_bytes:          the MTU that the hosts assume; None: that of the link
    receive_window_bytes:    initial receive window
    memory:                  what an earlier connection has learned about the path; None for nothing
    """

    congestion_control: str = DEFAULT_CONTROLLER
    size_bytes: int | None = None
    duration_ns: int | None = None
    start_ns: int = 0
    extra_delay_ns: int = 0
    rate_bps: float | None = None
    validates_address: bool = False
    host_mtu_bytes: int | None = None
    receive_window_bytes: int = RECEIVE_WINDOW_BYTES
    memory: PathMemory | None = None

    def __post_init__(self) -> None:
        if self.size_bytes is None and self.duration_ns is None:
            raise UsageError("a simulated flow without a size or a duration never ends: give it one")


@dataclass(slots=True)
class _Offer:
    """Datagrams on a path: the packet number of the first, and how many packets have no fate yet."""

    first: int
    open_fates: int
    offered_ns: int
    sender: Host
    datagrams: Datagrams


class _SharedPath:
    """One direction of the link: assigns each fate to its datagrams, which are then delivered or counted as lost.

    CoDel decides whether to drop a packet when the packet leaves the queue. The simulator therefore wakes the path at
    the time of the next decision, as it wakes a host at its next timer.
    """

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
            _count_lost(host, datagrams, 0, datagrams.count, TOO_LARGE)
            return
        first = self._path.handle_packets(
            now_ns, packet_bytes, datagrams.count, datagrams.last_bytes + IP_UDP_BYTES, datagrams.is_ecn_capable
        )
        self._offers.append(_Offer(first, datagrams.count, now_ns, host, datagrams))
        self._firsts.append(first)
        self.wake(now_ns)
        self._simulator.schedule(self)

    def next_ns(self) -> int | None:
        """When the next fate is decided; None for never."""
        next_ns = self._path.next_fate_ns() if self._offers else None
        return None if next_ns is None else int(-(-next_ns // 1))

    def wake(self, now_ns: int) -> None:
        """Apply the fates decided by now."""
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
            _count_lost(sender, datagrams, first, end, fate.drop)
            return
        if not fate.is_duplicate:
            size = datagrams.segment_bytes + IP_UDP_BYTES
            self.queueing.add(offer.offered_ns, fate, size)
        if fate.corrupt_at is not None:
            if not fate.is_duplicate:
                _count_lost(sender, datagrams, first, end, CORRUPT)
            return
        arrival_ns = fate.first_ns + sender.extra_delay_ns
        self._simulator.deliver(
            sender.peer, DatagramRun(datagrams, first, end, arrival_ns, fate.gap_ns, fate.is_marked)
        )


def _count_lost(host: Host, datagrams: Datagrams, first: int, end: int, reason: str) -> None:
    host.counters.lost_packets[reason] += end - first
    host.counters.lost_payload_bytes += datagrams.payload_bytes(first, end)


class Simulator:
    """Runs once. With `sample_interval_ns`, `samples` has a FlowSample of every active flow at each interval."""

    def __init__(self, link: LinkSpec, flows: Sequence[FlowSpec], sample_interval_ns: int | None = None) -> None:
        self.link = link
        self.now_ns = 0
        self.samples: list[FlowSample] = []
        forward, backward = path_models(link)
        self._forward = _SharedPath(forward, link.forward, link.mtu_bytes, self)
        self._backward = _SharedPath(backward, link.backward, link.mtu_bytes, self)
        self._events: list[tuple[int, int, Host | _SharedPath]] = []
        self._order = count()
        self._specs = tuple(flows)
        self._sample_interval_ns = sample_interval_ns
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((link.seed, len(flows)))))
        source = PatternSource(link.seed)
        self._hosts = [self._make_hosts(spec, source, generator) for spec in flows]

    def _make_hosts(
        self, spec: FlowSpec, source: PatternSource, generator: np.random.Generator
    ) -> tuple[ClientHost, ServerHost]:
        mtu_bytes = self.link.mtu_bytes if spec.host_mtu_bytes is None else spec.host_mtu_bytes
        client_id, server_id, seed = (int(draw) for draw in generator.integers(0, 1 << 63, 3))
        config = Config(
            congestion_control=spec.congestion_control,
            rate_bps=spec.rate_bps,
            max_datagram_bytes=max(mtu_bytes - IP_UDP_BYTES, wire.MIN_DATAGRAM_BYTES),
            receive_window_bytes=spec.receive_window_bytes,
            memory=spec.memory,
            seed=seed,
        )
        stop_ns = None if spec.duration_ns is None else spec.start_ns + spec.duration_ns
        server = ServerHost(self, config, source, server_id, spec.extra_delay_ns)
        token = b"" if spec.validates_address else server.return_token()
        client = ClientHost(
            self, config, source, client_id, spec.size_bytes, spec.start_ns, stop_ns, spec.extra_delay_ns, token
        )
        client.peer, server.peer = server, client
        self.schedule(client)
        return client, server

    def run(self, limit_ns: int = DEFAULT_LIMIT_NS) -> list[FlowResult]:
        """Run until every flow has ended, or the clock reaches `limit_ns`."""
        open_clients = [client for client, _ in self._hosts]
        sample_ns = 0
        events = self._events
        while events and open_clients:
            time_ns, _, woken = heapq.heappop(events)
            if woken.due_ns != time_ns:
                continue  # rescheduled since
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
            if isinstance(woken, ClientHost) and woken.ended_ns is not None:
                open_clients = [client for client in open_clients if client.ended_ns is None]
        return [
            FlowResult.of(spec.congestion_control, spec.start_ns, client, server, self.now_ns)
            for spec, (client, server) in zip(self._specs, self._hosts, strict=True)
        ]

    @property
    def queueing(self) -> QueueingDelay:
        """The queueing delay on the forward path."""
        return self._forward.queueing

    def send(self, now_ns: int, host: Host, datagrams: Datagrams) -> None:
        """As in `toolkit.simulator.host.Network`."""
        (self._forward if host.is_forward else self._backward).send(now_ns, host, datagrams)

    def deliver(self, host: Host, run: DatagramRun) -> None:
        """Let `run` arrive at `host` at its times."""
        host.inbox.put(run)
        if host.due_ns is None or run.first_ns < host.due_ns:
            self.schedule(host)

    def schedule(self, woken: Host | _SharedPath) -> None:
        """Schedule the next wake-up of `woken`."""
        next_ns = woken.next_ns()
        if next_ns is None:
            woken.due_ns = None
            return
        next_ns = max(next_ns, self.now_ns)
        if next_ns != woken.due_ns:
            woken.due_ns = next_ns
            heapq.heappush(self._events, (next_ns, next(self._order), woken))

    def _take_samples(self, time_ns: int) -> None:
        for flow, (client, server) in enumerate(self._hosts):
            if client.connection is not None and client.ended_ns is None:
                stats = client.connection.stats()
                self.samples.append(
                    FlowSample(
                        time_ns,
                        flow,
                        stats.congestion_window_bytes,
                        stats.bytes_in_flight,
                        stats.pacing_rate_bps,
                        stats.smoothed_rtt_ns,
                        server.delivered_bytes,
                        str(stats.congestion.get("phase", "")),
                    )
                )


@dataclass(frozen=True, slots=True)
class Experiment:
    """A link and the flows over it. The experiment ends after `limit_ns` of virtual time, finished or not."""

    link: LinkSpec
    flows: Sequence[FlowSpec]
    limit_ns: int = DEFAULT_LIMIT_NS


def payload_share(link: LinkSpec) -> float:
    """The share of payload in a full IP packet on `link`."""
    return (link.mtu_bytes - IP_UDP_BYTES - wire.HEADER_BYTES) / link.mtu_bytes


def run(experiment: Experiment, sample_interval_ns: int | None = None) -> ExperimentResult:
    """Simulate an experiment. The same experiment always gives the same result."""
    link = experiment.link
    simulator = Simulator(link, experiment.flows, sample_interval_ns)
    flows = simulator.run(experiment.limit_ns)
    start_ns = min(flow.start_ns for flow in flows)
    end_ns = max(flow.end_ns for flow in flows)
    delivered_bytes = sum(flow.landed_bytes for flow in flows)
    duration_s = to_seconds(end_ns - start_ns)
    if all(flow.finished_ns is not None for flow in flows):
        shortest_ns = ideal_ns(link.forward, payload_share(link), delivered_bytes, start_ns)
        ideal_bps = None if shortest_ns is None else rate_of(delivered_bytes, shortest_ns / 1e9)
    else:
        most_bytes = ideal_bytes(link.forward, payload_share(link), start_ns, end_ns)
        ideal_bps = None if most_bytes is None else rate_of(int(most_bytes), duration_s)
    return ExperimentResult(
        flows=flows,
        duration_ns=end_ns - start_ns,
        goodput_bps=rate_of(delivered_bytes, duration_s),
        ideal_bps=ideal_bps,
        queue_mean_ns=simulator.queueing.mean_ns,
        queue_p95_ns=simulator.queueing.percentile_ns(95),
        jain_index=jain_index_of(flows),
        samples=simulator.samples,
    )
