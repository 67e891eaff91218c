"""Announcements of extents that are lost on a long path: two channels in virtual time."""

import heapq
import socket
import time
from itertools import count

import pytest

from tests.support.content import BytesSource
from toolkit.channel import Address, Extent
from toolkit.rudp.batch import Batch, Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.protection import Unprotected
from toolkit.rudp.wire import PacketType
from toolkit.transports.udp.channel import UdpChannel
from toolkit.transports.udp.extents import OutgoingExtents
from toolkit.transports.udp.protection import SessionSecurity
from toolkit.transports.udp.socket import DatagramSocket

MS = 1_000_000
MIB = 1 << 20
RTT_NS = 300 * MS
RATE_BPS = 1e9
DATAGRAM_BYTES = 8972


class Path:
    """What the two ends send arrives half a round trip later, except for the message that is the `lost`-th of all.

    While the sender waits, time goes on, and the receiver takes what arrives.
    """

    def __init__(self, lost: int) -> None:
        self.now_ns = 1000 * MS
        self.messages = 0
        self._lost = lost
        self._events: list[tuple[int, int, PathSocket, Batch]] = []
        self._order = count()

    def send(self, transmit: Transmit, to: "PathSocket") -> None:
        if transmit.data[0] == PacketType.MESSAGE:
            self.messages += 1
            if self.messages == self._lost:
                return
        batch = Batch(memoryview(bytes(transmit.data)), transmit.segment_bytes, 0)
        heapq.heappush(self._events, (self.now_ns + RTT_NS // 2, next(self._order), to, batch))

    def advance(self, until_ns: int) -> "PathSocket | None":
        """Go on to the next arrival, or to `until_ns`; return where it has arrived."""
        if not self._events or self._events[0][0] > until_ns:
            self.now_ns = max(self.now_ns, until_ns)
            return None
        self.now_ns, _, to, batch = heapq.heappop(self._events)
        to.arrived.append(batch)
        return to


class PathSocket(DatagramSocket):
    """A socket at one end of a `Path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "off")
        self.path = path
        self.peer = self
        self.arrived: list[Batch] = []

    def receive(self) -> list[Batch]:
        arrived, self.arrived = self.arrived, []
        self.is_drained = True
        return arrived

    def send(self, transmit: Transmit) -> None:
        self.path.send(transmit, self.peer)


class Sink:
    """Takes content of `Source`, checks it, and keeps only how much there was."""

    def __init__(self) -> None:
        self.written_bytes = 0

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        assert file_id == 0
        assert data == bytes([offset // MIB]) * len(data)
        self.written_bytes += len(data)


class Source(BytesSource):
    """Content whose every MiB consists of its number."""

    def __init__(self) -> None:
        super().__init__(b"")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = bytes([offset // MIB]) * len(buffer)


def end(path: Path, local_id: int, peer_id: int) -> tuple[UdpChannel, Connection, PathSocket]:
    config = Config(
        congestion_control="rate", rate_bps=RATE_BPS, receive_window_bytes=1 << 30, max_datagram_bytes=DATAGRAM_BYTES
    )
    outgoing = OutgoingExtents()
    connection = Connection(
        config, outgoing, local_id, peer_id, DATAGRAM_BYTES, path.now_ns, Unprotected(), rtt_ns=RTT_NS
    )
    sock = PathSocket(path)
    return UdpChannel(connection, sock, outgoing, Address("", 0), SessionSecurity("", "")), connection, sock


@pytest.mark.parametrize("lost", [2, 90, 110])
def test_a_lost_announcement_stalls_nothing(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """On 1 Gbit/s and 300 ms, 36 MiB of content arrive before an announcement that was lost can arrive again.

    Messages 19 to 70 leave at once when the fixed rate comes into effect, so that nothing precedes their content yet.
    """
    path = Path(lost)
    near, near_connection, near_socket = end(path, 1, 2)
    far, far_connection, far_socket = end(path, 2, 1)
    near_socket.peer, far_socket.peer = far_socket, near_socket
    sink = Sink()

    def wait(_descriptors: list[int], timeout_ns: int | None) -> list[int]:
        """The sender waits."""
        until_ns = path.now_ns + (3600 * 1000 * MS if timeout_ns is None else timeout_ns)
        while True:
            far_ns = far_connection.poll_timeout()
            assert far_ns is not None
            arrived_at = path.advance(min(until_ns, far_ns))
            if arrived_at is far_socket or path.now_ns >= far_ns:
                far.receive(sink, timeout_s=0)
            if arrived_at is near_socket or path.now_ns >= until_ns:
                return []

    monkeypatch.setattr(time, "monotonic_ns", lambda: path.now_ns)
    monkeypatch.setattr("toolkit.transports.udp.channel.wait_readable", wait)
    near_connection.start(1 << 30)
    for number in range(160):
        near.send_extent(Extent(0, number * MIB, MIB), Source())
    near.flush()
    assert path.messages > lost
    assert sink.written_bytes == 160 * MIB
    assert near.statistics()["packets_retransmitted"] == 1
    near.abort()
    far.abort()
