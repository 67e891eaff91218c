"""Announcements of extents that are lost on a long path, in virtual time."""

from contextlib import suppress

import pytest

from tests.support.content import BytesSource, receive_all
from tests.support.repetitions import first_then_long
from tests.support.virtual_channels import MS, VirtualPath
from toolkit.channel import Channel, Extent, Statistic
from toolkit.errors import PeerClosedError
from toolkit.rudp.config import Config
from toolkit.rudp.wire import PacketType

MIB = 1 << 20
SIZE_MIB = 130
RTT_NS = 300 * MS
DATAGRAM_BYTES = 8972
CONFIG = Config(
    congestion_control="rate", rate_bps=1e9, receive_window_bytes=1 << 30, max_datagram_bytes=DATAGRAM_BYTES
)


class Source(BytesSource):
    """Content whose every MiB consists of its number."""

    def __init__(self) -> None:
        super().__init__(b"")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = bytes([offset // MIB]) * len(buffer)


class Sink:
    """Takes content of `Source`, checks it, and keeps only how much there was."""

    def __init__(self) -> None:
        self.written_bytes = 0

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        assert file_id == 0
        assert data == bytes([offset // MIB]) * len(data)
        self.written_bytes += len(data)


def send(channel: Channel) -> Statistic:
    """Send the content in extents of 1 MiB, each of which is announced by a message; how many packets were resent."""
    for number in range(SIZE_MIB):
        channel.send_extent(Extent(0, number * MIB, MIB), Source())
    channel.flush()
    channel.close()
    return channel.statistics()["packets_retransmitted"]


def receive(channel: Channel) -> int:
    """Receive until the sender closes; how many bytes of content arrived."""
    sink = Sink()
    receive_all(channel, sink)
    return sink.written_bytes


@pytest.mark.parametrize("lost", first_then_long([40, 2]))
def test_a_lost_announcement_stalls_nothing(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """On 1 Gbit/s and 300 ms, 36 MiB of content arrive before an announcement that was lost can arrive again.

    Those from 19 on that leave when the fixed rate comes into effect do not precede their content by so much yet.
    """
    announced = 0

    def is_lost(_now_ns: int, name: str, packet: bytes) -> bool:
        nonlocal announced
        is_announcement = name == "near" and packet[:1] == bytes([PacketType.MESSAGE])
        announced += is_announcement
        return is_announcement and announced == lost

    path = VirtualPath(monkeypatch, RTT_NS, is_lost, CONFIG, DATAGRAM_BYTES)
    resent, arrived_bytes = path.run(send, receive)
    assert announced > lost
    assert arrived_bytes == SIZE_MIB * MIB
    assert resent == 1


def test_content_that_overtook_its_announcement_is_delivered_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else arrives then that would wake the receiver."""
    messages = 0

    def is_lost(_now_ns: int, name: str, packet: bytes) -> bool:
        nonlocal messages
        is_message = name == "near" and packet[:1] == bytes([PacketType.MESSAGE])
        messages += is_message
        return is_message and messages == 1

    path = VirtualPath(monkeypatch, RTT_NS, is_lost)

    def send_and_wait(channel: Channel) -> None:
        channel.send_extent(Extent(0, 0, 3000), Source())
        with suppress(PeerClosedError):
            channel.receive(timeout_s=60.0)

    def receive_content(channel: Channel) -> int:
        sink = Sink()
        while sink.written_bytes < 3000:
            channel.receive(sink, 60.0)
        return path.now_ns

    begin_ns = path.now_ns
    _, end_ns = path.run(send_and_wait, receive_content)
    assert messages > 1
    assert end_ns - begin_ns < 5 * RTT_NS
