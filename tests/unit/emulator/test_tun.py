"""The loop of the emulator in virtual time, with socket pairs that keep packet boundaries in place of TUN devices."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from toolkit.emulator import tun, tun_device
from toolkit.emulator.accounting import EMULATOR, LinkAccounting
from toolkit.emulator.host_line import HostLine
from toolkit.emulator.offload import GSO_UDP_L4, NEEDS_CSUM, VNET_BYTES, VNET_HEADER
from toolkit.errors import NettoolError
from toolkit.netmodel.path import QUEUE, path_models
from toolkit.netmodel.spec import LAN, LinkChange, LinkSpec, PathSpec, QueueSpec

MS = 1_000_000
START_NS = 12_345 * MS


def packet(number: int, size: int = 500) -> bytes:
    """An IPv4 packet without offload, as a device yields it."""
    header = struct.pack("!BBHHHBBHII", 0x45, 0, size, number, 0, 64, 253, 0, 1, 2)
    return bytes(VNET_BYTES) + (header + struct.pack("!I", number)).ljust(size, b"\0")


def super_packet(packets: int, size: int) -> bytes:
    """UDP over IPv4 under one header, as a device with segmentation offload yields it."""
    payload = bytes(packets * (size - 28))
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, 1, 2)
    udp = struct.pack("!HHHH", 5000, 5001, 8 + len(payload), 0)
    return VNET_HEADER.pack(NEEDS_CSUM, GSO_UDP_L4, 28, size - 28, 20, 6) + header + udp + payload


def numbers_of(written: bytes) -> range:
    """The indexes, within their `super_packet`, of the packets of one write. Corruption spares the IPv4 header."""
    _, _, _, segment_bytes, _, _ = VNET_HEADER.unpack_from(written)
    (first,) = struct.unpack_from("!H", written, VNET_BYTES + 4)
    return range(first, first + (-(-(len(written) - VNET_BYTES - 28) // segment_bytes) if segment_bytes else 1))


class Bench:
    """An emulator between two socket pairs. Its clock stands still unless the test advances it."""

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        self.now_ns = START_NS
        self.near, near_device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far, far_device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.stop, self.control = socket.socketpair()
        self.sockets = [self.near, self.far, near_device, far_device, self.stop, self.control]
        for device in (near_device, far_device):
            device.setblocking(False)
        self.emulator = tun.Emulator(near_device.fileno(), far_device.fileno(), clock or (lambda: self.now_ns))

    def start(self, forward: PathSpec) -> None:
        self.emulator.start(LinkSpec(forward, PathSpec()))

    def send(self, *packets: bytes) -> None:
        """Send from the near end, and let the emulator read each packet: the socket holds only a few."""
        for data in packets:
            self.near.send(data)
            self.turn()

    def turn(self) -> None:
        """Let the emulator do once everything there is to do at this time."""
        self.stop.send(b"x")
        self.emulator.run(self.control.fileno())
        self.control.recv(1)

    def advance(self, milliseconds: float) -> list[bytes]:
        """Advance the clock; return the writes that arrive at the far end by then."""
        self.now_ns += round(milliseconds * MS)
        self.turn()
        arrived = []
        with suppress(BlockingIOError):
            while True:
                arrived.append(self.far.recv(1 << 16, socket.MSG_DONTWAIT))
        return arrived

    def accounting(self) -> LinkAccounting:
        return self.emulator.accounting()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for made_socket in made.sockets:
        made_socket.close()


def test_packets_arrive_unchanged_and_when_they_are_due(bench: Bench) -> None:
    bench.start(PathSpec(rate_bps=4e6, delay_ns=5 * MS))  # 1 ms for each packet of 500 bytes
    bench.send(*(packet(number) for number in range(8)))
    assert bench.advance(5.999) == []
    assert bench.advance(0.001) == [packet(0)]
    assert [bench.advance(1) for _ in range(7)] == [[packet(number)] for number in range(1, 8)]
    accounting = bench.accounting()
    assert (accounting.forward.offered, accounting.forward.delivered, accounting.forward.in_flight) == (8, 8, 0)
    assert accounting.forward.offered_bytes == accounting.forward.delivered_bytes == 4000
    assert accounting.forward.imbalance == 0
    assert accounting.backward.offered == 0
    assert accounting.late_max_ns == 0


def test_a_super_packet_reaches_the_queue_at_the_rate_of_the_senders_line(bench: Bench) -> None:
    bench.start(PathSpec(rate_bps=100e6, queue=QueueSpec(limit_bytes=30_000)))
    bench.send(super_packet(40, 1500))
    bench.advance(100)
    forward = bench.accounting().forward
    assert forward.dropped[QUEUE] == 40 - 20 - 3  # the queue sent three while forty arrived at 1 Gbit/s
    assert (forward.reads, forward.offered) == (1, 40)
    assert forward.writes < forward.delivered == 23  # written together, within 0.4 ms
    assert 0 < forward.held_mean_ns < tun.COALESCE_NS
    assert forward.imbalance == 0


@pytest.mark.parametrize("queue", [QueueSpec(), QueueSpec(codel=True)])
def test_the_delay_of_echoes_is_noted(bench: Bench, queue: QueueSpec) -> None:
    bench.start(PathSpec(rate_bps=4e6, delay_ns=5 * MS, queue=queue))
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 500, 0, 0, 64, socket.IPPROTO_ICMP, 0, 1, 2)
    for sequence, kind in ((7, 8), (8, 0), (9, 3)):  # a request, a reply, and something else
        message = struct.pack("!BBHHH", kind, 0, 0, 1, sequence)
        bench.send(bytes(VNET_BYTES) + (header + message).ljust(500, b"\0"))
    bench.advance(100)
    assert bench.accounting().forward.echo_delays_ns == {7: 6 * MS, 8: 7 * MS}


def test_the_line_of_a_sender() -> None:
    line = HostLine(LinkSpec(), PathSpec(rate_bps=100e6))
    assert line.send(1000, 1500, 15_000) == (1000, 12_000)
    assert line.send(2000, 1500, 1500) == (121_000, 12_000)  # after the packets before it
    assert HostLine(LinkSpec(), PathSpec(rate_bps=1e9)).send(0, 1500, 1500) == (0, 1200)
    assert HostLine(LinkSpec(), PathSpec()).send(5, 1500, 15_000) == (5, 0)  # nothing limits the path
    assert HostLine(LinkSpec(kind=LAN), PathSpec(rate_bps=1e9)).send(5, 1500, 15_000) == (5, 0)  # the host's own port


def test_a_sender_faster_than_its_line_loses_packets_in_its_own_host(bench: Bench) -> None:
    """The queue of the line holds 10,240 packets of 1,500 bytes, and sends one super-packet of 40 in 480 us."""
    bench.start(PathSpec(rate_bps=100e6))
    for _ in range(300):
        bench.send(super_packet(40, 1500))
    forward = bench.accounting().forward
    assert forward.host_dropped == 300 - 256
    assert (forward.offered, forward.imbalance) == (256 * 40, 0)
    bench.advance(0.48)
    bench.send(super_packet(40, 1500), super_packet(40, 1500))
    forward = bench.accounting().forward
    assert (forward.host_dropped, forward.offered) == (45, 257 * 40)


def test_the_loop_sleeps_until_a_packet_is_due() -> None:
    """With the real clock: no packet is early, and none is forgotten."""
    bench = Bench(time.monotonic_ns)
    bench.start(PathSpec(rate_bps=4e6, delay_ns=5 * MS))
    worker = threading.Thread(target=bench.emulator.run, args=(bench.control.fileno(),))
    worker.start()
    sent_ns = time.monotonic_ns()
    try:
        for number in range(8):
            bench.near.send(packet(number))
        for number in range(8):
            assert bench.far.recv(1 << 16) == packet(number)
            assert time.monotonic_ns() - sent_ns >= (6 + number) * MS
    finally:
        bench.stop.send(b"x")
        worker.join()
        for made_socket in bench.sockets:
            made_socket.close()


def test_neighbours_within_the_coalescing_interval_share_a_write(bench: Bench) -> None:
    bench.start(PathSpec(rate_bps=1e8))  # 16 packets of 300 bytes in 0.384 ms
    bench.send(super_packet(32, 300))
    assert bench.advance(0.3) == []
    assert [numbers_of(data) for data in bench.advance(0.1)] == [range(16)]
    assert [numbers_of(data) for data in bench.advance(0.4)] == [range(16, 32)]


def test_packets_in_flight_are_counted_as_such(bench: Bench) -> None:
    bench.start(PathSpec(delay_ns=60_000 * MS, duplicate=0.5, corrupt=0.5))
    bench.send(*(packet(number) for number in range(20)))
    accounting = bench.accounting()
    assert (accounting.forward.offered, accounting.forward.in_flight, accounting.forward.imbalance) == (20, 20, 0)


def test_packets_without_a_fate_are_in_flight(bench: Bench) -> None:
    bench.start(PathSpec(rate_bps=1e3, queue=QueueSpec(codel=True, limit_bytes=10_000)))
    bench.send(*(packet(number) for number in range(8)))
    accounting = bench.accounting()
    assert (accounting.forward.offered, accounting.forward.in_flight, accounting.forward.imbalance) == (8, 8, 0)


def test_codel_decides_without_further_arrivals(bench: Bench) -> None:
    queue = QueueSpec(codel=True, limit_bytes=10**6, target_ns=MS, interval_ns=5 * MS)
    bench.start(PathSpec(rate_bps=8e6, queue=queue))  # 0.5 ms each: the last of 60 packets waits for 30 ms
    bench.send(*(packet(number) for number in range(60)))
    arrived = [data for _ in range(80) for data in bench.advance(0.5)]
    forward = bench.accounting().forward
    numbers = [struct.unpack_from("!I", data, VNET_BYTES + 20)[0] for data in arrived]
    assert numbers == sorted(numbers)
    assert forward.dropped["aqm"] > 0
    assert len(numbers) + forward.dropped["aqm"] == 60
    assert (forward.in_flight, forward.imbalance) == (0, 0)


@pytest.mark.parametrize("impairment", [{"duplicate": 0.3}, {"corrupt": 0.3}, {"duplicate": 0.3, "corrupt": 0.3}])
def test_duplicates_and_corrupted_packets_keep_their_order(bench: Bench, impairment: dict[str, float]) -> None:
    """A duplicate follows its original and precedes the next packet, even where thirty packets share a write."""
    spec = PathSpec(rate_bps=1e8, delay_ns=MS, **impairment)  # type: ignore[arg-type]
    model, _ = path_models(LinkSpec(spec, PathSpec()))
    model.handle_packets(0, 132, 60)
    expected = sorted(index for fate in model.poll_fates(0) for index, _ in fate.deliveries())
    bench.start(spec)
    bench.send(super_packet(60, 132))
    arrived = [data for _ in range(30) for data in bench.advance(0.1)]
    assert [number for data in arrived for number in numbers_of(data)] == expected
    forward = bench.accounting().forward
    assert forward.duplicates + forward.corrupted > 10
    assert (forward.offered, forward.in_flight, forward.imbalance) == (60, 0, 0)


def test_packets_beyond_the_memory_limit_are_dropped_and_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun, "MAX_HELD_BYTES", 2600)
    bench.start(PathSpec(delay_ns=300 * MS))
    bench.send(*(packet(number) for number in range(8)))
    assert bench.advance(300) == [packet(number) for number in range(5)]
    forward = bench.accounting().forward
    assert (forward.dropped[EMULATOR], forward.imbalance) == (3, 0)
    bench.send(packet(9))  # delivered packets no longer use memory
    assert bench.advance(300) == [packet(9)]


def test_packets_that_the_far_device_rejects_are_counted(bench: Bench) -> None:
    bench.start(PathSpec())
    bench.far.close()
    bench.send(packet(1))
    forward = bench.accounting().forward
    assert (forward.dropped[EMULATOR], forward.imbalance) == (1, 0)


def test_a_new_start_discards_packets_in_flight(bench: Bench) -> None:
    bench.start(PathSpec(delay_ns=10 * MS))
    bench.send(packet(1))
    bench.near.send(packet(2))
    bench.start(PathSpec())
    bench.send(packet(3))
    assert bench.advance(20) == [packet(3)]
    assert bench.accounting().forward.offered == 1


def test_reads_that_are_not_ip_packets_are_ignored(bench: Bench) -> None:
    bench.start(PathSpec())
    bench.send(b"\xff" * 60, packet(1))
    assert bench.advance(0) == [packet(1)]
    assert bench.accounting().forward.offered == 1


def test_changes_count_from_the_start(bench: Bench) -> None:
    bench.start(PathSpec(changes=(LinkChange(10 * MS, blackout_ns=60_000 * MS),)))
    bench.send(packet(1))
    assert bench.advance(10) == [packet(1)]
    bench.send(packet(2))
    assert bench.advance(10) == []
    assert bench.accounting().forward.dropped["blackout"] == 1


def test_lateness_is_reported(bench: Bench) -> None:
    bench.start(PathSpec(delay_ns=MS))
    bench.send(packet(1))
    bench.advance(5.5)  # the emulator was held up for 4.5 ms
    accounting = bench.accounting()
    assert accounting.late_p50_ns == accounting.late_p99_ns == pytest.approx(4.5 * MS, abs=10_000)
    assert accounting.late_max_ns == 4.5 * MS
    assert accounting.duration_ns == 5.5 * MS
    assert accounting.cpu_ns > 0


def test_the_summary_states_what_happened(bench: Bench) -> None:
    bench.start(PathSpec(loss=1.0))
    bench.send(packet(1))
    lines = list(bench.accounting().summary())
    assert lines[0].startswith("near -> far: 1 packets offered, 0 delivered")
    assert "1 dropped: loss (100%)" in lines[0]
    assert "UNACCOUNTED" not in "".join(lines)
    assert "seed 1" in lines[2]


def test_a_missing_device_is_one_line_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun_device, "TUN_DEVICE", "/no/such/device")
    with pytest.raises(NettoolError, match="modprobe tun"):
        tun_device.open_tun("x")
    monkeypatch.setattr(tun_device, "TUN_DEVICE", os.devnull)
    with pytest.raises(NettoolError, match="refuses a TUN device"):
        tun_device.open_tun("x")
