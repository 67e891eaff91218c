"""The emulator's loop without a device: sockets that keep packets apart stand in for it."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from toolkit.emulator import tun
from toolkit.emulator.accounting import EMULATOR, LinkAccounting
from toolkit.emulator.offload import GSO_UDP_L4, NEEDS_CSUM, VNET_BYTES, VNET_HEADER
from toolkit.errors import NettoolError
from toolkit.netmodel.path import path_models
from toolkit.netmodel.spec import LinkChange, LinkSpec, PathSpec, QueueSpec

MS = 1_000_000


def packet(number: int, size: int = 500) -> bytes:
    """An IPv4 packet without offload, as a device hands it over."""
    header = struct.pack("!BBHHHBBHII", 0x45, 0, size, number, 0, 64, 253, 0, 1, 2)
    return bytes(VNET_BYTES) + (header + struct.pack("!I", number)).ljust(size, b"\0")


def super_packet(packets: int, size: int) -> bytes:
    """UDP over IPv4 under one header, as a device with segmentation offload hands it over."""
    payload = bytes(packets * (size - 28))
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 28 + len(payload), 0, 0, 64, 17, 0, 1, 2)
    udp = struct.pack("!HHHH", 5000, 5001, 8 + len(payload), 0)
    return VNET_HEADER.pack(NEEDS_CSUM, GSO_UDP_L4, 28, size - 28, 20, 6) + header + udp + payload


def numbers_of(written: bytes) -> range:
    """The places in their `super_packet` of the packets of one write: no damage meets the IPv4 identification."""
    _, _, _, segment_bytes, _, _ = VNET_HEADER.unpack_from(written)
    (first,) = struct.unpack_from("!H", written, VNET_BYTES + 4)
    return range(first, first + (-(-(len(written) - VNET_BYTES - 28) // segment_bytes) if segment_bytes else 1))


class Bench:
    """An emulator between two stand-ins, and what a test does with it."""

    def __init__(self) -> None:
        self.near, near_device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far, far_device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stop, self._control = socket.socketpair()
        self.sockets = [self.near, self.far, near_device, far_device, self._stop, self._control]
        for device in (near_device, far_device):
            device.setblocking(False)
        self.far_device = far_device
        self.far.settimeout(5)
        self.near.settimeout(5)
        self.emulator = tun.Emulator(near_device.fileno(), far_device.fileno())

    def start(self, forward: PathSpec) -> None:
        self.emulator.start(LinkSpec(forward, PathSpec()))

    def run_while(self, receive: int) -> tuple[list[bytes], list[int]]:
        """Let it work until `receive` writes came to the far end: these, and when (ns)."""
        return self.run_until(lambda came: len(came) == receive)

    def run_until(self, is_over: Callable[[list[bytes]], bool]) -> tuple[list[bytes], list[int]]:
        """The same, until they are enough."""
        worker = threading.Thread(target=self.emulator.run, args=(self._control.fileno(),))
        worker.start()
        came: list[bytes] = []
        times: list[int] = []
        try:
            while not is_over(came):
                came.append(self.far.recv(1 << 16))
                times.append(time.monotonic_ns())
        finally:
            self.turn(worker)
        return came, times

    def turn(self, worker: threading.Thread | None = None) -> None:
        """Stop the worker, or have the emulator look once at what there is."""
        self._stop.send(b"x")
        if worker is None:
            self.emulator.run(self._control.fileno())
        else:
            worker.join()
        self._control.recv(1)

    def accounting(self) -> LinkAccounting:
        return self.emulator.accounting()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    for made_socket in made.sockets:
        made_socket.close()


def test_packets_arrive_as_they_were_and_not_early(bench: Bench) -> None:
    bench.start(PathSpec(rate_bps=4e6, delay_ns=5 * MS))  # 1 ms for each packet of 500 bytes
    sent_ns = time.monotonic_ns()
    for number in range(8):
        bench.near.send(packet(number))
    came, times = bench.run_while(8)
    assert came == [packet(number) for number in range(8)]
    assert all(at - sent_ns >= (6 + index) * MS for index, at in enumerate(times))
    accounting = bench.accounting()
    assert (accounting.forward.offered, accounting.forward.delivered, accounting.forward.in_flight) == (8, 8, 0)
    assert accounting.forward.offered_bytes == accounting.forward.delivered_bytes == 4000
    assert accounting.forward.imbalance == 0
    assert accounting.backward.offered == 0


def test_what_is_under_way_is_counted_where_it_is(bench: Bench) -> None:
    bench.start(PathSpec(delay_ns=60_000 * MS, duplicate=0.5, corrupt=0.5))
    for number in range(20):
        bench.near.send(packet(number))
        bench.turn()
    accounting = bench.accounting()
    assert (accounting.forward.offered, accounting.forward.in_flight, accounting.forward.imbalance) == (20, 20, 0)


def test_undecided_packets_are_under_way_as_well(bench: Bench) -> None:
    bench.start(PathSpec(rate_bps=1e3, queue=QueueSpec(codel=True, limit_bytes=10_000)))
    for number in range(8):
        bench.near.send(packet(number))
        bench.turn()
    accounting = bench.accounting()
    assert (accounting.forward.offered, accounting.forward.in_flight, accounting.forward.imbalance) == (8, 8, 0)


def test_codel_decides_while_nothing_comes(bench: Bench) -> None:
    queue = QueueSpec(codel=True, limit_bytes=10**6, target_ns=MS, interval_ns=5 * MS)
    bench.start(PathSpec(rate_bps=8e6, queue=queue))  # 0.5 ms each: the last of 60 waits for 30 ms
    for number in range(60):
        bench.near.send(packet(number))
        bench.turn()  # such a socket holds a few packets only
    came, _ = bench.run_while(45)
    accounting = bench.accounting()
    numbers = [struct.unpack_from("!I", data, VNET_BYTES + 20)[0] for data in came]
    assert numbers == sorted(numbers)
    assert accounting.forward.dropped["aqm"] > 0
    assert accounting.forward.imbalance == 0


@pytest.mark.parametrize("harm", [{"duplicate": 0.3}, {"corrupt": 0.3}, {"duplicate": 0.3, "corrupt": 0.3}])
def test_copies_and_damaged_packets_keep_their_place(bench: Bench, harm: dict[str, float]) -> None:
    """A copy comes after its original and before the next packet, though thirty packets share a write."""
    spec = PathSpec(rate_bps=1e8, delay_ns=MS, **harm)  # type: ignore[arg-type]
    model, _ = path_models(LinkSpec(spec, PathSpec()))
    model.handle_packets(0, 132, 60)
    expected = sorted(index for fate in model.poll_fates(0) for index, _ in fate.deliveries())
    bench.start(spec)
    bench.near.send(super_packet(60, 132))
    came, _ = bench.run_until(lambda came: sum(len(numbers_of(data)) for data in came) == len(expected))
    assert [number for data in came for number in numbers_of(data)] == expected
    accounting = bench.accounting()
    assert accounting.forward.duplicates + accounting.forward.corrupted > 10
    assert (accounting.forward.offered, accounting.forward.in_flight, accounting.forward.imbalance) == (60, 0, 0)


def test_memory_is_bounded_and_what_is_beyond_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun, "MAX_HELD_BYTES", 2600)
    bench.start(PathSpec(delay_ns=300 * MS))
    for number in range(8):
        bench.near.send(packet(number))
        bench.turn()
    came, _ = bench.run_while(5)
    assert came == [packet(number) for number in range(5)]
    accounting = bench.accounting()
    assert accounting.forward.dropped[EMULATOR] == 3
    assert accounting.forward.imbalance == 0
    bench.near.send(packet(9))  # what was delivered is held no more
    assert bench.run_while(1)[0] == [packet(9)]


def test_a_device_that_takes_nothing_is_told(bench: Bench) -> None:
    bench.start(PathSpec())
    bench.far.close()
    bench.near.send(packet(1))
    bench.turn()
    bench.turn()
    accounting = bench.accounting()
    assert (accounting.forward.dropped[EMULATOR], accounting.forward.imbalance) == (1, 0)


def test_a_new_start_forgets(bench: Bench) -> None:
    bench.start(PathSpec(delay_ns=10 * MS))
    bench.near.send(packet(1))
    bench.turn()
    bench.near.send(packet(2))
    bench.start(PathSpec())
    bench.near.send(packet(3))
    came, _ = bench.run_while(1)
    assert came == [packet(3)]
    assert bench.accounting().forward.offered == 1


def test_what_is_no_packet_is_passed_over(bench: Bench) -> None:
    bench.start(PathSpec())
    bench.near.send(b"\xff" * 60)
    bench.near.send(packet(1))
    assert bench.run_while(1)[0] == [packet(1)]
    assert bench.accounting().forward.offered == 1


def test_changes_count_from_the_start(bench: Bench) -> None:
    bench.start(PathSpec(changes=(LinkChange(0, blackout_ns=60_000 * MS),)))
    bench.near.send(packet(1))
    bench.turn()
    bench.turn()
    assert bench.accounting().forward.dropped["blackout"] == 1


def test_lateness_is_told(bench: Bench) -> None:
    bench.start(PathSpec(delay_ns=MS))
    bench.near.send(packet(1))
    bench.turn()
    time.sleep(0.02)  # the emulator is kept from working
    bench.run_while(1)
    accounting = bench.accounting()
    assert accounting.late_p50_ns == accounting.late_p99_ns >= 10 * MS
    assert accounting.late_max_ns >= 10 * MS
    assert accounting.duration_ns >= 20 * MS
    assert accounting.cpu_ns > 0


def test_the_summary_has_what_happened(bench: Bench) -> None:
    bench.start(PathSpec(loss=1.0))
    bench.near.send(packet(1))
    bench.turn()
    bench.turn()
    lines = list(bench.accounting().summary())
    assert lines[0].startswith("near -> far: 1 packets offered, 0 delivered")
    assert "1 dropped: loss (100%)" in lines[0]
    assert "UNACCOUNTED" not in "".join(lines)
    assert "seed 1" in lines[2]


def test_no_device_is_one_line_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun, "_NODE", "/no/such/device")
    with pytest.raises(NettoolError, match="modprobe tun"):
        tun.open_tun("x")
    monkeypatch.setattr(tun, "_NODE", os.devnull)
    with pytest.raises(NettoolError, match="gives no TUN device"):
        tun.open_tun("x")
