"""A connection follows the state table: every input in every state leads to the state in the table."""

from itertools import product

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.repetitions import examples
from toolkit.rudp import wire
from toolkit.rudp.batch import Batch, Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.protection import Unprotected
from toolkit.rudp.state import TRANSITIONS, UNREACHABLE_NS, ConnectionEvent, ConnectionState
from toolkit.rudp.streams import MessageBuffer

LOCAL_ID, PEER_ID = 0x1111, 0x2222
IDLE_NS = 10_000_000_000
FIRST_NUMBER = 2000

PACKETS = {
    "data": wire.DATA.pack(wire.PacketType.DATA, 0, LOCAL_ID, 1000, 0) + b"x",
    "message": wire.DATA.pack(wire.PacketType.MESSAGE, 0, LOCAL_ID, 1001, 0) + b"\0\0\0\0",
    "ping": wire.PING.pack(wire.PacketType.PING, 0, LOCAL_ID, 1002, 0, 5000, 1000),
    "probe": wire.COMMON.pack(wire.PacketType.PROBE, 0, LOCAL_ID, 1003) + bytes(1400),
    "challenge": wire.PATH.pack(wire.PacketType.PATH_CHALLENGE, 0, LOCAL_ID, 1004, 77),
}
FOREIGN = {
    name: packet[:2] + (LOCAL_ID ^ 1).to_bytes(8, "big") + packet[10:]
    for name, packet in {**PACKETS, "close": wire.encode_close(LOCAL_ID, 9, 0, "")}.items()
}
NOISE = {
    "nothing known": bytes(100),
    "short": b"\x10",
}
LATE_HANDSHAKE = [wire.PREFIX.pack(kind, 0, LOCAL_ID) + bytes(1190) for kind in range(1, wire.PacketType.DATA)]
ABSURD = {
    "unknown type": wire.COMMON.pack(0x7F, 0, LOCAL_ID, 5),
    "unsent ack": wire.encode_ack(LOCAL_ID, 5, wire.AckPacket([(1 << 40, 1 << 41)], 0, 0, 0, 0, 0, 0)),
    "response": wire.PATH.pack(wire.PacketType.PATH_RESPONSE, 0, LOCAL_ID, 6, 1),
}


def numbered(packet: bytes, number: int) -> bytes:
    """The packet with this packet number."""
    return packet[:10] + number.to_bytes(8, "big") + packet[18:]


def test_the_table_has_every_state_and_event() -> None:
    assert {state for state, _ in TRANSITIONS} == set(ConnectionState)
    assert {event for _, event in TRANSITIONS} == set(ConnectionEvent)
    assert set(TRANSITIONS.values()) <= set(ConnectionState)


@pytest.mark.parametrize(("state", "event"), list(product(ConnectionState, ConnectionEvent)))
def test_every_event_can_happen_in_every_state(state: ConnectionState, event: ConnectionEvent) -> None:
    assert (state, event) in TRANSITIONS


def test_closed_is_final() -> None:
    assert {after for (state, _), after in TRANSITIONS.items() if state is ConnectionState.CLOSED} == {
        ConnectionState.CLOSED
    }


class ConnectionWalk(RuleBasedStateMachine):
    """Inputs in any order; `expected` is the state by the table."""

    @initialize()
    def begin(self) -> None:
        self.now_ns = 5_000_000_000
        config = Config(idle_timeout_ns=IDLE_NS)
        self.connection = Connection(config, MessageBuffer(), LOCAL_ID, PEER_ID, 1472, self.now_ns, Unprotected())
        self.expected = ConnectionState.ESTABLISHED
        self.close_is_owed = False
        self.number = FIRST_NUMBER
        self.last_valid_ns = self.now_ns
        self.refused_since_ns: int | None = None
        self.oldest_sent_ns = 1 << 62  # of the packets in flight; the peer of this test acknowledges nothing

    def on(self, event: ConnectionEvent) -> None:
        self.expected = TRANSITIONS[self.expected, event]

    def receive(self, packet: bytes) -> int:
        before = self.connection.stats().packets_invalid
        self.connection.handle_batch(Batch(memoryview(packet), len(packet)), self.now_ns)
        return self.connection.stats().packets_invalid - before

    def transmitted(self) -> list[Transmit]:
        sent = []
        while (transmit := self.connection.poll_transmit(self.now_ns)) is not None:
            sent.append(transmit)
            assert len(sent) < 100
        return sent

    @rule(times=st.integers(1, 2))
    def close(self, times: int) -> None:
        self.close_is_owed |= self.expected is not ConnectionState.CLOSED
        for _ in range(times):
            self.connection.close(0, "done")
            self.on(ConnectionEvent.CLOSE)

    @rule()
    def peer_closes(self) -> None:
        was = self.expected
        self.number += 1
        assert self.receive(wire.encode_close(LOCAL_ID, self.number, 4, "over")) == 0
        self.on(ConnectionEvent.PEER_CLOSED)
        self.close_is_owed = was is ConnectionState.ESTABLISHED
        if was is ConnectionState.ESTABLISHED:
            assert (self.connection.close_code, self.connection.close_reason) == (4, "over")
        self.heard()

    @rule(name=st.sampled_from(sorted(PACKETS)))
    def packet(self, name: str) -> None:
        self.number += 1
        assert self.receive(numbered(PACKETS[name], self.number)) == 0
        self.close_is_owed |= self.expected is ConnectionState.CLOSING
        self.heard()

    @rule(name=st.sampled_from(sorted(PACKETS)))
    def repeated_packet(self, name: str) -> None:
        """A repeated packet does not show that the peer is still there: anyone on the path can repeat it."""
        if self.number > FIRST_NUMBER:
            assert self.receive(numbered(PACKETS[name], self.number)) == 0
            self.close_is_owed |= self.expected is ConnectionState.CLOSING

    @rule(packet=st.sampled_from(LATE_HANDSHAKE))
    def late_packet_of_the_handshake(self, packet: bytes) -> None:
        assert self.receive(packet) == 0

    @rule(packet=st.sampled_from([*FOREIGN.values(), *NOISE.values()]))
    def packet_of_another_connection(self, packet: bytes) -> None:
        assert self.receive(packet) == 1

    @rule(packet=st.sampled_from([*ABSURD.values()]))
    def invalid_packet(self, packet: bytes) -> None:
        """After this side has closed, any packet with its id only shows that the peer is still there."""
        assert self.receive(packet) == (self.expected is ConnectionState.ESTABLISHED)
        self.close_is_owed |= self.expected is ConnectionState.CLOSING

    @rule()
    def silence(self) -> None:
        self.now_ns += IDLE_NS // 4
        self.connection.handle_timeout(self.now_ns)
        if self.expected is ConnectionState.ESTABLISHED and self.now_ns >= self.last_valid_ns + IDLE_NS:
            self.on(ConnectionEvent.LOST)
            assert "was silent for" in self.connection.close_reason
        elif self.expected is ConnectionState.ESTABLISHED and self.now_ns >= self.oldest_sent_ns + IDLE_NS:
            self.on(ConnectionEvent.LOST)
            assert "acknowledged nothing for" in self.connection.close_reason

    @rule()
    def unreachable(self) -> None:
        self.now_ns += UNREACHABLE_NS // 2
        self.connection.handle_unreachable(self.now_ns)
        if self.expected is not ConnectionState.ESTABLISHED:
            return
        if self.refused_since_ns is None:
            self.refused_since_ns = self.now_ns
        elif self.now_ns - self.refused_since_ns >= UNREACHABLE_NS:
            self.on(ConnectionEvent.LOST)
            assert "port is closed" in self.connection.close_reason

    @rule()
    def send(self) -> None:
        kinds = [transmit.data[0] for transmit in self.transmitted()]
        if self.connection.stats().bytes_in_flight:
            self.oldest_sent_ns = min(self.oldest_sent_ns, self.now_ns)
        kinds = [kind for kind in kinds if kind != wire.PacketType.ACCEPT]
        if self.expected is not ConnectionState.ESTABLISHED:
            assert kinds == [wire.PacketType.CLOSE] * self.close_is_owed
            self.close_is_owed = False

    def heard(self) -> None:
        self.last_valid_ns = self.now_ns
        self.refused_since_ns = None

    @invariant()
    def is_in_the_state_of_the_table(self) -> None:
        assert self.connection.state is self.expected
        timeout_ns = self.connection.poll_timeout()
        assert (timeout_ns is None) == (self.expected is not ConnectionState.ESTABLISHED)


TestConnectionWalk = ConnectionWalk.TestCase
TestConnectionWalk.settings = settings(max_examples=examples(200), stateful_step_count=25)
