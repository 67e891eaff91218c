"""The UDP socket over loopback: sending and receiving batches, with and without offload, and the kernel's errors."""

import errno
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.support.background import PATIENCE_S, wait_until
from toolkit.rudp.batch import MAX_BATCH_BYTES, Transmit
from toolkit.transports.udp.socket import (
    DatagramSocket,
    PeerUnreachableError,
    wait_readable,
)

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
UDP_SEGMENT = 103
SEGMENT = 1472


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Pair:
    """Two sockets connected to each other."""

    def __init__(
        self, cleanup: ExitStack, family: int = socket.AF_INET, offload: str = "auto", sender: type = socket.socket
    ) -> None:
        raw = [cleanup.enter_context(kind(family, socket.SOCK_DGRAM)) for kind in (sender, socket.socket)]
        for sock in raw:
            sock.bind((LOOPBACK[socket.AddressFamily(family)], 0))
        raw[0].connect(raw[1].getsockname())
        raw[1].connect(raw[0].getsockname())
        self.near, self.far = (DatagramSocket(sock, offload) for sock in raw)

    def send(self, *datagrams: bytes, ecn: int = 0) -> None:
        """Send as one batch: all but the last have one size."""
        self.near.send(Transmit(memoryview(b"".join(datagrams)), len(datagrams[0]), ecn))

    def received(self, total_bytes: int) -> list[bytes]:
        """Receive datagrams until `total_bytes` have arrived."""
        datagrams: list[bytes] = []
        while sum(map(len, datagrams)) < total_bytes:
            assert select.select([self.far.sock], [], [], PATIENCE_S)[0], "nothing more arrives"
            for batch in self.far.receive():
                data, step = bytes(batch.data), batch.segment_bytes
                datagrams += [data[i : i + step] for i in range(0, len(data), step)]
        return datagrams


def numbered(count: int, size: int = SEGMENT, last: int | None = None) -> list[bytes]:
    sizes = [size] * (count - 1) + [size if last is None else last]
    return [(b"%08d" % i * (n // 8 + 1))[:n] for i, n in enumerate(sizes)]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("offload", ["auto", "off"])
class TestBatches:
    @pytest.mark.parametrize(("count", "last"), [(1, None), (1, 1), (2, None), (45, 7), (64, None), (170, 1471)])
    def test_arrive_as_the_same_datagrams(
        self, cleanup: ExitStack, family: int, offload: str, count: int, last: int | None
    ) -> None:
        pair = Pair(cleanup, family, offload)
        datagrams = numbered(count, last=last)
        pair.send(*datagrams)
        assert pair.received(sum(map(len, datagrams))) == datagrams

    def test_of_different_sizes_arrive_in_order(self, cleanup: ExitStack, family: int, offload: str) -> None:
        pair = Pair(cleanup, family, offload)
        sent = []
        for size in (1200, 1472, 30, 1472, 1472, 1200, 9):
            datagrams = numbered(5, size, last=max(1, size - 3))
            pair.send(*datagrams)
            sent += datagrams
        pair.near.send_datagram(b"alone" * 200)
        assert pair.received(sum(map(len, sent)) + 1000) == [*sent, b"alone" * 200]

    def test_carry_their_ecn_field(self, cleanup: ExitStack, family: int, offload: str) -> None:
        pair = Pair(cleanup, family, offload)
        ecns = []
        for ecn in (0b10, 0b10, 0b11, 0b00, 0b01):
            pair.send(*numbered(3), ecn=ecn)
            select.select([pair.far.sock], [], [], PATIENCE_S)
            ecns += [batch.ecn for batch in pair.far.receive()]
        assert ecns == [0b10, 0b10, 0b11, 0b00, 0b01]


def is_stamped(pair: Pair) -> bool:
    """Whether the kernel has stamped a datagram when it arrived, and not when it was read."""
    pair.send(b"x")
    select.select([pair.far.sock], [], [], PATIENCE_S)
    time.sleep(0.01)
    (batch,) = pair.far.receive()
    return batch.waited_ns >= 10_000_000


class TestReceive:
    def test_returns_nothing_from_an_empty_queue(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup)
        assert pair.far.receive() == []
        assert pair.far.is_drained

    @pytest.mark.parametrize("offload", ["auto", "off"])
    def test_returns_at_most_one_batch_of_the_maximum_size(self, cleanup: ExitStack, offload: str) -> None:
        pair = Pair(cleanup, offload=offload)
        total = 3 * MAX_BATCH_BYTES
        if pair.far.receive_buffer_bytes < 3 * total:
            pytest.skip("this system's receive buffer is too small")
        for _ in range(total // (44 * SEGMENT)):
            pair.send(*numbered(44))
        batches = pair.far.receive()
        assert not pair.far.is_drained
        assert MAX_BATCH_BYTES - (1 << 16) < sum(len(b.data) for b in batches) <= MAX_BATCH_BYTES

    def test_joins_consecutive_datagrams_of_one_size(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup, offload="off")
        pair.send(*numbered(10))
        pair.send(*numbered(3, 100))
        select.select([pair.far.sock], [], [], PATIENCE_S)
        assert [(len(b.data), b.segment_bytes) for b in pair.far.receive()] == [(10 * SEGMENT, SEGMENT), (300, 100)]

    @pytest.mark.parametrize(("step_s", "is_known"), [(0.0, True), (0.5, True), (-60.0, False), (60.0, False)])
    def test_says_how_long_the_last_of_a_batch_has_waited(
        self, cleanup: ExitStack, monkeypatch: pytest.MonkeyPatch, step_s: float, is_known: bool
    ) -> None:
        """Somebody sets the clock meanwhile: nothing has waited since before the socket was last empty."""
        pair = Pair(cleanup, offload="off")
        wait_until(lambda: is_stamped(pair), "a time stamp of the kernel, which begins a moment after it was asked to")
        before_ns = time.monotonic_ns()
        assert pair.far.receive() == []
        pair.send(*numbered(2))
        pair.send(*numbered(2, 100))
        select.select([pair.far.sock], [], [], PATIENCE_S)
        time.sleep(0.01)
        clock = time.time_ns
        monkeypatch.setattr("toolkit.kernel_timestamps.time.time_ns", lambda: clock() + int(step_s * 1e9))
        first, second = (batch.waited_ns / 1e9 for batch in pair.far.receive())
        passed_s = (time.monotonic_ns() - before_ns) / 1e9
        for waited_s in (first, second):
            assert 0.01 <= waited_s <= passed_s if is_known else waited_s == 0.0

    def test_a_short_datagram_ends_a_batch(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup, offload="off")
        for size in (100, 40, 100, 100):
            pair.near.send_datagram(bytes(size))
        assert [len(d) for d in pair.received(340)] == [100, 40, 100, 100]

    def test_skips_empty_datagrams(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup)
        pair.near.send_datagram(b"")
        pair.near.send_datagram(b"x")
        assert pair.received(1) == [b"x"]

    def test_counts_datagrams_that_the_host_dropped(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup, offload="off")
        pair.far.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(200):
            pair.send(*numbered(1))
        kept = len(pair.received(SEGMENT))
        pair.far.receive()
        pair.send(*numbered(1))
        pair.received(SEGMENT)
        assert kept < 200
        assert 0 < pair.far.drop_count < 200


class RefusingSocket(socket.socket):
    """A socket whose route leads to a device that cannot segment."""

    refused = 0

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        segment = self.getsockopt(17, UDP_SEGMENT)
        if 0 < segment < len(data):
            self.refused += 1
            raise OSError(errno.EIO, "Input/output error")
        return super().send(data, flags)


class TestRefusedSegmentation:
    @pytest.mark.parametrize("count", [2, 44, 200])
    def test_is_replaced_by_single_datagrams_without_loss(self, cleanup: ExitStack, count: int) -> None:
        pair = Pair(cleanup, sender=RefusingSocket)
        if not pair.near.can_segment:
            pytest.skip("this kernel has no UDP_SEGMENT")
        datagrams = numbered(count, last=100)
        pair.send(*datagrams)
        assert not pair.near.can_segment
        assert pair.received(sum(map(len, datagrams))) == datagrams
        pair.send(*datagrams)
        pair.near.send_datagram(bytes(3000))
        assert pair.received(sum(map(len, datagrams)) + 3000) == [*datagrams, bytes(3000)]
        assert isinstance(pair.near.sock, RefusingSocket)
        assert pair.near.sock.refused == 1

    def test_another_error_is_raised(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup, offload="off", sender=BrokenSocket)
        with pytest.raises(OSError, match="Input/output"):
            pair.send(*numbered(1))


class BrokenSocket(socket.socket):
    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        del data, flags
        raise OSError(errno.EIO, "Input/output error")


class RefusedAfterOne(socket.socket):
    """Returns one datagram, and then reports that the peer has gone."""

    calls = 0

    def recvmsg_into(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == 2:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return super().recvmsg_into(*arguments)


class OftenRefusedSocket(socket.socket):
    """A socket that has the report of a closed port before every datagram."""

    has_report = True

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        self.has_report = not self.has_report
        if not self.has_report:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return super().send(data, flags)


class TestErrors:
    def test_a_closed_port_is_reported(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup)
        pair.far.close()
        pair.send(b"x")
        select.select([pair.near.sock], [], [], PATIENCE_S)
        with pytest.raises(PeerUnreachableError):
            pair.near.receive()
        assert pair.near.receive() == []
        pair.send(b"x")
        select.select([pair.near.sock], [], [], PATIENCE_S)
        pair.send(b"x")
        with pytest.raises(PeerUnreachableError):
            pair.near.receive()

    def test_reports_of_a_closed_port_cost_no_datagram(self, cleanup: ExitStack) -> None:
        """They may be forged: whoever sends many could otherwise keep everything from leaving."""
        pair = Pair(cleanup, offload="off", sender=OftenRefusedSocket)
        datagrams = numbered(5)
        assert pair.near.send(Transmit(memoryview(b"".join(datagrams)), SEGMENT)) == 0
        assert pair.received(SEGMENT) == datagrams
        assert pair.near.send_errors == 0
        with pytest.raises(PeerUnreachableError):
            pair.near.receive()

    def test_a_closed_port_does_not_hide_earlier_datagrams(self, cleanup: ExitStack) -> None:
        """The last datagram of a peer and the report that it has gone may wait together, in either order."""
        pair = Pair(cleanup)
        pair.far.send(Transmit(memoryview(b"last words"), 10))
        pair.far.close()
        pair.send(b"x")  # the answer is the ICMP report
        select.select([pair.near.sock], [], [], PATIENCE_S)
        received = []
        refusals = 0
        for _ in range(3):
            try:
                received += [bytes(b.data) for b in pair.near.receive()]
            except PeerUnreachableError:
                refusals += 1
        assert received == [b"last words"]
        assert refusals == 1

    def test_a_closed_port_does_not_hide_datagrams_of_the_same_call(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup, offload="off")
        raw = cleanup.enter_context(RefusedAfterOne(socket.AF_INET, socket.SOCK_DGRAM))
        raw.bind(("127.0.0.1", 0))
        raw.connect(pair.near.sock.getsockname())
        pair.near.sock.connect(raw.getsockname())
        receiver = DatagramSocket(raw, "off")
        pair.send(b"last words")
        select.select([raw], [], [], PATIENCE_S)
        assert [bytes(b.data) for b in receiver.receive()] == [b"last words"]
        with pytest.raises(PeerUnreachableError):
            receiver.receive()
        assert receiver.receive() == []

    def test_a_datagram_that_is_too_long_is_lost_and_no_other_is(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup)
        pair.send(bytes(65_508))
        assert pair.near.send_errors == 1
        pair.send(b"x")
        assert pair.received(1) == [b"x"]
        assert pair.near.receive() == []

    def test_a_routers_report_about_an_earlier_datagram_is_no_error(self, cleanup: ExitStack) -> None:
        """The next call of any kind returns ICMP "fragmentation needed"; the engine probes for itself."""
        pair = Pair(cleanup)
        with pytest.raises(OSError, match="too long"):
            pair.near.sock.send(bytes(65_508))  # leaves the same error as a router's report
        assert pair.near.receive() == []
        with pytest.raises(OSError, match="too long"):
            pair.near.sock.send(bytes(65_508))
        pair.send(b"x")
        assert pair.received(1) == [b"x"]

    def test_a_datagram_that_cannot_be_sent_is_dropped(self, cleanup: ExitStack) -> None:
        sock = DatagramSocket(cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        sock.send_to(b"x", ("255.255.255.255", 9))  # broadcast is not allowed on this socket


class AddressGoneSocket(socket.socket):
    """A socket whose local address no longer belongs to any interface."""

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        del data, flags
        raise OSError(errno.EINVAL, "Invalid argument")


class TestRoute:
    def roaming(self, cleanup: ExitStack, kind: type = socket.socket) -> tuple[DatagramSocket, socket.socket]:
        """Return a socket connected from 127.0.0.2, which the system would not choose now, and its peer."""
        peer = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        peer.bind(("127.0.0.1", 0))
        raw = cleanup.enter_context(kind(socket.AF_INET, socket.SOCK_DGRAM))
        raw.bind(("127.0.0.2", 0))
        raw.connect(peer.getsockname())
        return cleanup.enter_context(closing(DatagramSocket(raw))), peer

    def test_is_followed_to_the_systems_local_address(self, cleanup: ExitStack) -> None:
        roaming, peer = self.roaming(cleanup)
        roaming.send_datagram(b"before")
        offload = roaming.can_segment, roaming.can_coalesce
        assert roaming.follow_route()
        assert not roaming.follow_route()
        assert roaming.sock.getsockname()[0] == "127.0.0.1"
        assert (roaming.can_segment, roaming.can_coalesce) == offload
        roaming.send(Transmit(memoryview(b"after"), 2, 0b10))
        assert [peer.recvfrom(100) for _ in range(4)][1:] == [
            (data, roaming.sock.getsockname()) for data in (b"af", b"te", b"r")
        ]
        assert roaming.datagrams_sent == 4
        peer.sendto(b"answer", roaming.sock.getsockname())
        select.select([roaming.sock], [], [], PATIENCE_S)
        assert [bytes(batch.data) for batch in roaming.receive()] == [b"answer"]

    def test_the_drop_count_survives_a_change(self, cleanup: ExitStack) -> None:
        roaming, peer = self.roaming(cleanup)
        roaming.drop_count = 7
        assert roaming.follow_route()
        peer.sendto(b"x", roaming.sock.getsockname())
        select.select([roaming.sock], [], [], PATIENCE_S)
        roaming.receive()
        assert roaming.drop_count == 7

    def test_a_lost_route_is_not_taken_for_refused_segmentation(self, cleanup: ExitStack) -> None:
        roaming, peer = self.roaming(cleanup, AddressGoneSocket)
        can_segment = roaming.can_segment
        roaming.send(Transmit(memoryview(b"lost"), 2))
        assert roaming.is_route_lost
        assert roaming.send_errors == 2
        assert roaming.can_segment == can_segment
        assert roaming.follow_route()
        assert not roaming.is_route_lost
        roaming.send_datagram(b"x")
        assert peer.recv(100) == b"x"

    def test_a_datagram_that_is_too_long_is_no_lost_route(self, cleanup: ExitStack) -> None:
        roaming, _ = self.roaming(cleanup)
        roaming.send_datagram(bytes(65_508))
        assert roaming.send_errors == 1
        assert not roaming.is_route_lost

    def test_an_unconnected_socket_has_no_route(self, cleanup: ExitStack) -> None:
        sock = DatagramSocket(cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
        before = sock.sock
        assert not sock.follow_route()
        assert sock.sock is before


class FullSocket(socket.socket):
    """A socket whose send queue is full at first."""

    is_full = True

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        if self.is_full:
            self.is_full = False
            raise BlockingIOError
        return super().send(data, flags)


class ShallowSocket(socket.socket):
    """A socket whose device has no room after `room` calls."""

    room = 1

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        if self.room == 0:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        self.room -= 1
        return super().send(data, flags)


class StuckSocket(socket.socket):
    """A socket whose send queue stays full although poll(2) says that it has room."""

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        del data, flags
        raise BlockingIOError


class TestFullQueuesOfThisHost:
    def test_what_the_device_drops_is_reported_as_not_sent(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup, offload="off", sender=ShallowSocket)
        datagrams = numbered(5)
        assert pair.near.send(Transmit(memoryview(b"".join(datagrams)), SEGMENT)) == 4
        assert pair.received(SEGMENT) == datagrams[:1]
        assert (pair.near.datagrams_sent, pair.near.local_drops, pair.near.send_errors) == (1, 1, 0)

    def test_a_dropped_super_packet_counts_all_its_datagrams(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup, sender=ShallowSocket)
        if not pair.near.can_segment:
            pytest.skip("this kernel has no UDP_SEGMENT")
        assert pair.near.send(Transmit(memoryview(b"".join(numbered(88))), SEGMENT)) == 44
        assert pair.near.local_drops == 44

    def test_a_send_does_not_wait_forever(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup, offload="off", sender=StuckSocket)
        assert pair.near.send(Transmit(memoryview(b"".join(numbered(3))), SEGMENT)) == 3
        assert pair.near.local_drops == 0

    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
    def test_errors_of_earlier_datagrams_do_not_end_every_wait(self, cleanup: ExitStack, family: int) -> None:
        pair = Pair(cleanup, family)
        pair.near.report_local_drops()
        pair.far.close()
        pair.send(b"x")
        assert wait_readable([pair.near.fileno()], None)
        with pytest.raises(PeerUnreachableError):
            pair.near.receive()
        assert wait_readable([pair.near.fileno()], 1_000_000) == []

    def test_nor_does_the_error_of_a_datagram_to_another_address(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup)
        pair.near.report_local_drops()
        pair.near.send_to(bytes(65_520), pair.far.sock.getsockname())  # longer than the MTU of loopback
        assert wait_readable([pair.near.fileno()], 1_000_000) == []


def use_up_descriptors(cleanup: ExitStack) -> None:
    """Open every descriptor that select(2) can wait for."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1100:
        pytest.skip("this system does not allow that many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    cleanup.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
    for _ in range(1030):
        cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))


class TestWaiting:
    def test_for_room_works_with_any_descriptor(self, cleanup: ExitStack) -> None:
        use_up_descriptors(cleanup)
        pair = Pair(cleanup, sender=FullSocket)
        assert pair.near.fileno() >= 1024
        pair.send(b"x")
        assert wait_readable([pair.far.fileno()], None) == [pair.far.fileno()]

    def test_ends_at_the_timeout(self, cleanup: ExitStack) -> None:
        pair = Pair(cleanup)
        assert wait_readable([pair.far.fileno()], 1_000_000) == []
        assert wait_readable([pair.far.fileno()], -5) == []

    def test_ends_when_one_is_readable(self, cleanup: ExitStack) -> None:
        pair, other = Pair(cleanup), Pair(cleanup)
        pair.send(b"x")
        assert wait_readable([other.far.fileno(), pair.far.fileno()], None) == [pair.far.fileno()]
        assert pair.received(1) == [b"x"]

    def test_works_with_descriptors_above_the_limit_of_select(self, cleanup: ExitStack) -> None:
        use_up_descriptors(cleanup)
        pair = Pair(cleanup)
        assert pair.far.fileno() >= 1024
        pair.send(b"x")
        assert wait_readable([pair.far.fileno()], None) == [pair.far.fileno()]
        assert wait_readable([pair.near.fileno()], 1_500_000) == []


def test_the_largest_datagram_is_that_of_the_routes_interface(cleanup: ExitStack) -> None:
    for family, largest in ((socket.AF_INET, 65_535 - 28), (socket.AF_INET6, 65_536 - 48)):
        pair = Pair(cleanup, family)
        assert pair.near.max_datagram_bytes(1472) == 1472
        assert pair.near.max_datagram_bytes(1 << 20) == largest
    unconnected = DatagramSocket(cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    assert unconnected.max_datagram_bytes(1234) == 1234


class LargeBuffers(socket.socket):
    """A socket whose default buffers are larger than the wanted ones; records the options that are set."""

    def __init__(self) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM)
        self.options_set: set[tuple[int, int]] = set()

    def getsockopt(self, level: int, option: int, *length: int) -> Any:
        if level == socket.SOL_SOCKET and option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            return 1 << 30
        return super().getsockopt(level, option, *length)

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        self.options_set.add((level, option))
        super().setsockopt(level, option, *value)


def test_a_larger_default_receive_buffer_is_kept() -> None:
    forced = 33  # SO_RCVBUFFORCE
    with LargeBuffers() as sock:
        assert DatagramSocket(sock).receive_buffer_bytes == 1 << 30
        for option in (socket.SO_RCVBUF, forced):
            assert (socket.SOL_SOCKET, option) not in sock.options_set
