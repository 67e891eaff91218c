"""An echo over the reliable protocol takes a round trip of the path, and nothing more. In virtual time."""

import pytest

from tests.support.virtual_channels import MS, VirtualPath
from toolkit.channel import Channel
from toolkit.conversation.echo import echo_messages
from toolkit.conversation.probes import SessionEcho
from toolkit.rudp.wire import PacketType
from toolkit.transports.udp.channel import UdpChannel

RTT_NS, INTERVAL_NS, PROBES = 40 * MS, 50 * MS, 50


class Probing:
    """A client that sends a probe every INTERVAL_NS, and what the server sends meanwhile.

    times_ns: the round trips
    answers:  times and types of the server's packets
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times_ns: list[int] = []
        self.answers: list[tuple[int, int]] = []
        self.path = VirtualPath(monkeypatch, RTT_NS, self._on_packet)

    def _on_packet(self, now_ns: int, sender: str, packet: bytes) -> bool:
        if sender == "far":
            self.answers.append((now_ns, packet[0]))
        return False

    def probe(self, channel: Channel) -> None:
        echo = SessionEcho(channel)
        for _ in range(PROBES):
            sent_ns = self.path.now_ns
            echo.send(bytes(56))
            reply = echo.receive(1.0)
            assert reply is not None
            assert (reply.data, reply.arrived_ns) == (bytes(56), self.path.now_ns)
            self.times_ns.append(self.path.now_ns - sent_ns)
            while (left_ns := sent_ns + INTERVAL_NS - self.path.now_ns) > 0:
                assert echo.receive(left_ns / 1e9) is None
        echo.close()


def test_the_engine_adds_no_delay_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    probing = Probing(monkeypatch)
    probing.path.run(probing.probe, lambda channel: echo_messages(channel, lambda: False))
    assert probing.times_ns == [RTT_NS] * PROBES


def test_a_message_is_acknowledged_before_the_application_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that goes away with it leaves no peer that waits for the acknowledgement."""
    acknowledged_when_taken: list[bool] = []
    probing = Probing(monkeypatch)

    def answer(channel: UdpChannel) -> None:
        for _ in range(PROBES):
            while (message := channel.receive()) is None:
                pass
            now_ns = probing.path.now_ns
            acknowledged_when_taken.append((now_ns, PacketType.ACK) in probing.answers)
            channel.send_message(message)
        channel.close()

    probing.path.run(probing.probe, answer)
    assert acknowledged_when_taken == [True] * PROBES


def test_what_an_application_does_for_long_delays_no_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    probing = Probing(monkeypatch)
    arrived_ns: list[int] = []

    def answer_slowly(channel: UdpChannel) -> None:
        for _ in range(PROBES):
            while (message := channel.receive()) is None:
                pass
            arrived_ns.append(probing.path.now_ns)
            probing.path.work(channel, 5 * MS)
            channel.send_message(message)
        channel.close()

    probing.path.run(probing.probe, answer_slowly)
    acknowledged_ns = {now_ns for now_ns, kind in probing.answers if kind == PacketType.ACK}
    assert len(arrived_ns) == PROBES
    assert set(arrived_ns) <= acknowledged_ns
