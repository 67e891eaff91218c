"""An application that does not come back for long, or is interrupted, and a peer that breaks the protocol at the end.

In virtual time.
"""

import random
import threading
from pathlib import Path

import pytest

from tests.support.content import BytesSink, BytesSource, StallingDisk, StallingSink, StallingSource, receive_all
from tests.support.virtual_channels import MS, SECOND, VirtualPath
from toolkit import transfer
from toolkit.channel import Extent, ExtentSink, Statistic
from toolkit.errors import PeerAbortedError, PeerClosedError, TransferError
from toolkit.forwarding_channel import ForwardingChannel
from toolkit.rudp.batch import MAX_SUPER_PACKET_BYTES
from toolkit.rudp.config import Config
from toolkit.rudp.congestion.base import initial_window_bytes
from toolkit.rudp.sender import MAX_ROUND_BYTES
from toolkit.rudp.wire import PacketType
from toolkit.transfer import content
from toolkit.transfer.incoming import IncomingFiles
from toolkit.transfer.messages import Alive, EntryOutcome
from toolkit.transfer.sources import FileOrigin
from toolkit.transports.udp.channel import MAX_BACKLOG_BYTES, UdpChannel
from toolkit.transports.udp.extents import STASH_BYTES
from toolkit.transports.udp.send_room import SendRoom

RTT_NS = 40 * MS
IDLE_TIMEOUT_S = 30


def test_an_application_that_takes_long_over_each_message_does_not_look_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """All messages are there at once, so that nothing but their number is left to wait for."""
    count = IDLE_TIMEOUT_S
    path = VirtualPath(monkeypatch, RTT_NS)

    def send(channel: UdpChannel) -> bytes | None:
        for number in range(count):
            channel.send_message(b"%d" % number, has_more=number < count - 1)
        return channel.receive(timeout_s=4.0 * IDLE_TIMEOUT_S)

    def work(channel: UdpChannel) -> list[bytes | None]:
        messages = []
        for _ in range(count):
            messages.append(channel.receive(timeout_s=1.0))
            path.work(channel, 2 * SECOND)
        channel.send_message(b"done")
        channel.close()
        return messages

    assert path.run(send, work) == (b"done", [b"%d" % number for number in range(count)])


def test_small_extents_wait_for_room_as_a_large_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows may be unsent and one on the way; a slow path would take half a minute for a hundred extents."""
    size, count = 1_200, 100
    path = VirtualPath(monkeypatch, RTT_NS, config=Config(congestion_control="rate", rate_bps=58e3))
    path.near.backlog_bytes = size

    def send(channel: UdpChannel) -> int:
        most = 0
        for number in range(count):
            channel.send_extent(Extent(0, number * size, size), BytesSource(bytes(count * size)))
            most = max(most, (number + 1) * size - channel.acknowledged_bytes)
        channel.flush()
        channel.close()
        return most

    sink = BytesSink()
    most, _ = path.run(send, lambda channel: receive_all(channel, sink))
    assert sink.written_bytes == count * size
    assert most < 4 * initial_window_bytes(1_452)


@pytest.mark.parametrize(("round_bytes", "is_long"), [(MAX_ROUND_BYTES, True), (1, False)])
def test_a_channel_prepares_no_more_than_this_host_has_room_for(
    monkeypatch: pytest.MonkeyPatch, round_bytes: int, is_long: bool
) -> None:
    monkeypatch.setattr(SendRoom, "max_round_bytes", round_bytes)
    longest_bytes = 0

    def watch(_now_ns: int, sender: str, data: bytes) -> bool:
        nonlocal longest_bytes
        longest_bytes = max(longest_bytes, len(data) if sender == "near" else 0)
        return False

    path = VirtualPath(monkeypatch, MS, watch, Config(congestion_control="rate", rate_bps=10e9))
    size, sink = 2 << 20, BytesSink()

    def send(channel: UdpChannel) -> None:
        channel.send_extent(Extent(0, 0, size), BytesSource(bytes(size)))
        channel.flush()
        channel.close()

    path.run(send, lambda channel: receive_all(channel, sink))
    assert sink.written_bytes == size
    assert (longest_bytes > MAX_SUPER_PACKET_BYTES) == is_long


@pytest.mark.parametrize("staller", ["sender", "receiver", "both"])
def test_a_disk_that_stalls_for_longer_than_the_idle_timeout_costs_no_connection(
    monkeypatch: pytest.MonkeyPatch, staller: str
) -> None:
    path = VirtualPath(monkeypatch, RTT_NS)
    large = random.Random(1).randbytes(2 << 20)

    def stall(channel: UdpChannel) -> None:
        if staller in ("both", "sender" if channel is path.near else "receiver"):
            path.work(channel, 4 * IDLE_TIMEOUT_S * SECOND)

    def send(channel: UdpChannel) -> float:
        source = StallingSource(large, StallingDisk(lambda: stall(channel), after_bytes=len(large) // 2))
        channel.send_extent(Extent(0, 0, len(large)), source)
        channel.flush()
        channel.close()
        return float(channel.statistics()["rtt_ms"])

    sink = StallingSink(StallingDisk(lambda: stall(path.far), after_bytes=len(large) // 2))
    rtt_ms, _ = path.run(send, lambda channel: receive_all(channel, sink))
    assert sink.content(0) == large
    assert rtt_ms < 500


@pytest.mark.parametrize("staller", ["sender", "receiver"])
def test_a_stall_over_a_small_file_costs_no_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, staller: str
) -> None:
    path = VirtualPath(monkeypatch, RTT_NS)
    (tmp_path / "small").write_bytes(b"content")
    (tmp_path / "in").mkdir()
    read, commit = content.read_small, IncomingFiles.commit

    def stall(channel: UdpChannel) -> None:
        path.work(channel, 4 * IDLE_TIMEOUT_S * SECOND)

    def read_slowly(origin: FileOrigin) -> bytes:
        stall(path.near)
        return read(origin)

    def commit_slowly(files: IncomingFiles, file_id: int) -> EntryOutcome:
        stall(path.far)
        return commit(files, file_id)

    if staller == "sender":
        monkeypatch.setattr(content, "read_small", read_slowly)
    else:
        monkeypatch.setattr(IncomingFiles, "commit", commit_slowly)

    def send(channel: UdpChannel) -> None:
        transfer.send(channel, [tmp_path / "small"])
        channel.close()

    path.run(send, lambda channel: transfer.receive(channel, tmp_path / "in"))
    assert (tmp_path / "in" / "small").read_bytes() == b"content"


class StuckChannel(ForwardingChannel):
    """A receiver's channel: once content has arrived, the receiver only sends; the sender is cancelled meanwhile."""

    def __init__(self, path: VirtualPath, cancel: threading.Event) -> None:
        super().__init__(path.far)
        self._path, self._cancel = path, cancel

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """See Channel."""
        message = super().receive(sink, timeout_s, wake)
        if message is None and not self._cancel.is_set():
            for second in range(4 * IDLE_TIMEOUT_S):  # what it sends acknowledges what arrives: it does not look gone
                if second == 2 * IDLE_TIMEOUT_S:
                    self._cancel.set()
                self._path.work(self._path.far, SECOND)
                self.send_message(Alive().encode())
            raise AssertionError("the sender still waits")
        return message


@pytest.mark.timeout(60)
def test_a_cancelled_sender_does_not_wait_for_a_peer_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "large").write_bytes(bytes(STASH_BYTES + 2 * MAX_BACKLOG_BYTES))
    (tmp_path / "in").mkdir()
    path, cancel = VirtualPath(monkeypatch, RTT_NS), threading.Event()

    def send(channel: UdpChannel) -> None:
        with pytest.raises(TransferError, match="the transfer was cancelled"):
            transfer.send(channel, [tmp_path / "large"], cancel=cancel)
        channel.close()

    def receive(_: UdpChannel) -> None:
        with pytest.raises(TransferError, match="the sender cancelled the transfer"):
            transfer.receive(StuckChannel(path, cancel), tmp_path / "in")

    path.run(send, receive)


def test_an_interrupted_close_says_that_the_session_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    is_closing = False

    def interrupt_once(_now_ns: int, name: str, packet: bytes) -> bool:
        nonlocal is_closing
        is_message = name == "near" and packet[0] == PacketType.MESSAGE
        if is_message and is_closing:
            is_closing = False
            raise KeyboardInterrupt
        return is_message

    def close(channel: UdpChannel) -> None:
        nonlocal is_closing
        channel.send_message(b"lost")
        is_closing = True
        with pytest.raises(KeyboardInterrupt):
            channel.close()

    def wait(channel: UdpChannel) -> None:
        with pytest.raises(PeerAbortedError):
            channel.receive(timeout_s=60.0)

    VirtualPath(monkeypatch, RTT_NS, interrupt_once).run(close, wait)


def test_invalid_messages_of_a_peer_do_not_make_a_close_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are discarded, as everything that arrives then."""
    path = VirtualPath(monkeypatch, RTT_NS)

    def close(channel: UdpChannel) -> Statistic:
        path.work(channel, SECOND)  # meanwhile, they arrive
        channel.close()
        return channel.statistics()["packets_received"]

    def send_invalid_messages(channel: UdpChannel) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("toolkit.transports.udp.channel.APPLICATION_MESSAGE", b"\x07")
            for number in range(5):
                channel.send_message(b"", has_more=number < 4)  # in one packet
        with pytest.raises(PeerClosedError, match="the peer has closed the connection"):
            channel.receive(timeout_s=60.0)

    received, _ = path.run(close, send_invalid_messages)
    assert received == 1
