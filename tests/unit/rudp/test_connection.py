"""A single connection: how it handles packets, and when its timers expire."""

import pytest

from toolkit.rudp import wire
from toolkit.rudp.batch import Batch, Transmit
from toolkit.rudp.config import Config
from toolkit.rudp.connection import Connection
from toolkit.rudp.control_packets import FinishPacket
from toolkit.rudp.protection import Unprotected
from toolkit.rudp.state import KEEP_ALIVES_PER_IDLE_TIMEOUT, UNREACHABLE_NS, ConnectionState
from toolkit.rudp.streams import MessageBuffer

MS = 1_000_000
SECOND = 1000 * MS
START = 7 * SECOND
LOCAL, PEER = 0x1111, 0x2222
CONFIG = Config(idle_timeout_ns=30 * SECOND)


def client() -> Connection:
    connection = Connection(CONFIG, MessageBuffer(), LOCAL, PEER, 1472, START, Unprotected(), rtt_ns=40 * MS)
    connection.start(1 << 20)
    return connection


def server() -> Connection:
    return Connection(CONFIG, MessageBuffer(), LOCAL, PEER, 1472, START, Unprotected())


def state_of(connection: Connection) -> ConnectionState:
    return connection.state


def receive(connection: Connection, *datagrams: bytes, now_ns: int = START) -> None:
    for datagram in datagrams:
        connection.handle_batch(Batch(memoryview(datagram), len(datagram)), now_ns)


def sent(connection: Connection, now_ns: int = START) -> list[bytes]:
    """The datagrams that are sent now."""
    datagrams = []
    while (transmit := connection.poll_transmit(now_ns)) is not None:
        datagrams += [bytes(d) for d in cut(transmit)]
    return datagrams


def cut(transmit: Transmit) -> list[memoryview]:
    return [transmit.data[i : i + transmit.segment_bytes] for i in range(0, len(transmit.data), transmit.segment_bytes)]


def kinds(datagrams: list[bytes]) -> list[int]:
    return [d[0] for d in datagrams]


def data(number: int, connection_id: int = LOCAL, offset: int = 0) -> bytes:
    return wire.DATA.pack(wire.PacketType.DATA, 0, connection_id, number, offset) + b"x"


def ping(number: int, flags: int = 0) -> bytes:
    return wire.PING.pack(wire.PacketType.PING, flags, LOCAL, number, 0, 5000, 1000)


def test_what_waits_in_a_socket_makes_the_path_no_longer() -> None:
    """A PING arrives after 15 ms and is read 5 ms later; its ACK takes 18 ms, and is read 10 ms after that."""
    near, far = client(), Connection(CONFIG, MessageBuffer(), PEER, LOCAL, 1472, START, Unprotected())
    (probe,) = sent(near)
    far.handle_batch(Batch(memoryview(probe), len(probe), waited_ns=5 * MS), START + 20 * MS)
    leaves_ns = far.acks.ack_time_ns
    assert leaves_ns is not None
    (answer,) = sent(far, leaves_ns)
    near.handle_batch(Batch(memoryview(answer), len(answer), waited_ns=10 * MS), leaves_ns + 28 * MS)
    assert near.stats().latest_rtt_ns == leaves_ns - START + 18 * MS
    assert near.stats().path_rtt_ns == 33 * MS
    near.acks.send_time_ns = MS
    assert near.stats().path_rtt_ns == 32 * MS


class TestHandshake:
    FINISH = bytes([0x06]) + bytes(40)

    def finishing(self, sent_time_ns: int | None = None) -> Connection:
        finish = FinishPacket(self.FINISH, sent_time_ns)
        connection = Connection(
            CONFIG, MessageBuffer(), LOCAL, PEER, 1472, START, Unprotected(), finish, rtt_ns=40 * MS
        )
        connection.start(1 << 20)
        return connection

    def test_a_client_begins_with_finish(self) -> None:
        datagrams = sent(self.finishing())
        assert datagrams[0] == self.FINISH
        assert kinds(datagrams[1:]) == [wire.PacketType.PING]

    def test_finish_that_the_driver_has_sent_is_only_repeated(self) -> None:
        connection = self.finishing(START)
        assert kinds(sent(connection)) == [wire.PacketType.PING]
        timeout_ns = connection.poll_timeout()
        assert timeout_ns is not None
        assert START < timeout_ns < START + 400 * MS

    def test_finish_is_repeated_with_probes_until_the_server_has_answered(self) -> None:
        connection = self.finishing()
        sent(connection)
        for _ in range(3):
            due_ns = connection.poll_timeout()
            assert due_ns is not None
            connection.handle_timeout(due_ns)
            assert kinds(sent(connection, due_ns)) == [0x06, wire.PacketType.PING, wire.PacketType.PING]
        receive(connection, data(0), now_ns=due_ns)
        due_ns = connection.poll_timeout()
        assert due_ns is not None
        sent(connection, due_ns)
        for now_ns in range(due_ns, due_ns + 3 * SECOND, 50 * MS):
            connection.handle_timeout(now_ns)
            assert 0x06 not in kinds(sent(connection, now_ns))
        assert connection.pto_count >= 2

    def test_finish_is_repeated_although_new_messages_put_the_probe_timeout_off(self) -> None:
        connection = self.finishing()
        sent(connection)
        repeated = 0
        for now_ns in range(START, START + 2 * SECOND, 100 * MS):
            connection.send_message(b"still here")
            connection.handle_timeout(now_ns)
            repeated += kinds(sent(connection, now_ns)).count(0x06)
        assert connection.pto_count == 0
        assert 3 <= repeated <= 8

    def test_a_side_that_has_sent_nothing_does_not_search_for_the_mtu(self) -> None:
        """A server that only receives needs no large packets, and a probe would delay its first acknowledgement."""
        connection = server()
        receive(connection, ping(0))
        packets = sent(connection)
        receive(connection, data(1))
        packets += sent(connection, START + SECOND)
        assert wire.PacketType.ACK in kinds(packets)
        assert wire.PacketType.PROBE not in kinds(packets)

    def test_a_client_uses_the_servers_id_at_once(self) -> None:
        datagrams = sent(client())
        assert kinds(datagrams)[0] == wire.PacketType.PING
        assert all(wire.connection_id_untrusted(d)[1] == PEER for d in datagrams)

    @pytest.mark.parametrize("packet_type", range(1, wire.PacketType.DATA))
    @pytest.mark.parametrize("connection_id", [LOCAL, PEER])
    def test_a_late_packet_of_the_handshake_has_no_effect(self, packet_type: int, connection_id: int) -> None:
        connection = server()
        before = connection.stats()
        late = wire.PREFIX.pack(packet_type, 0, connection_id) + bytes(1190)
        receive(connection, late, now_ns=START + 20 * SECOND)
        assert connection.stats() == before
        assert sent(connection, START + 20 * SECOND) == []
        connection.handle_timeout(START + CONFIG.idle_timeout_ns)
        assert state_of(connection) is ConnectionState.CLOSED


class TestInvalidPackets:
    def test_are_counted_and_do_not_keep_the_connection_alive(self) -> None:
        connection = client()
        later = START + 20 * SECOND
        noise = [
            bytes(50),
            data(1, LOCAL ^ 1),
            wire.COMMON.pack(0x55, 0, LOCAL, 5),
            wire.COMMON.pack(wire.PacketType.PROBE, 0, LOCAL, wire.MAX_OFFSET),
            wire.DATA.pack(wire.PacketType.MESSAGE, 0, LOCAL, 5, 0),
        ]
        receive(connection, *noise, now_ns=later)
        assert connection.stats().packets_invalid == len(noise)
        connection.handle_timeout(START + CONFIG.idle_timeout_ns)
        assert state_of(connection) is ConnectionState.CLOSED

    def test_do_not_affect_the_other_packets_of_a_batch(self) -> None:
        connection = client()
        good = [data(n, offset=n) for n in range(3)]
        joined = b"".join((good[0], data(9, LOCAL ^ 1), good[1], data(9, offset=1 << 40), good[2], bytes(20)))
        connection.handle_batch(Batch(memoryview(joined), len(good[0])), START)
        assert connection.received_offset == 3
        assert [(p, len(v)) for p, v in connection.received_data()] == [(0, 3)]
        assert connection.stats().packets_invalid == 3

    def test_packets_that_need_no_acknowledgement_cause_none(self) -> None:
        connection = client()
        sent(connection)
        receive(connection, data(5, offset=1 << 40), ping(6))
        (ack,) = [d for d in sent(connection, START + SECOND) if d[0] == wire.PacketType.ACK]
        assert wire.decode_ack_untrusted(ack).ranges == [(6, 7)]

    def test_a_new_message_goes_before_an_acknowledgement_and_what_follows_behind_it(self) -> None:
        connection = client()
        receive(connection, ping(0))
        sent(connection, START + SECOND)
        receive(connection, data(1), now_ns=START + SECOND)
        for message in (b"short", bytes(1 << 20)):
            connection.send_message(message)
        first, second = (connection.poll_transmit(START + 2 * SECOND) for _ in range(2))
        assert first is not None
        assert second is not None
        assert kinds([bytes(first.data), bytes(second.data)]) == [wire.PacketType.MESSAGE, wire.PacketType.ACK]


class TestSilence:
    def test_ends_the_connection_after_the_idle_timeout(self) -> None:
        connection = client()
        connection.handle_timeout(START + CONFIG.idle_timeout_ns - 1)
        assert state_of(connection) is ConnectionState.ESTABLISHED
        connection.handle_timeout(START + CONFIG.idle_timeout_ns)
        assert state_of(connection) is ConnectionState.CLOSED
        assert connection.close_reason == "the peer was silent for 30 s; check that it and the path to it are still up"
        assert connection.poll_timeout() is None
        assert sent(connection, START + CONFIG.idle_timeout_ns) == []

    def test_is_prevented_by_keep_alives(self) -> None:
        connection = client()
        for number in range(2):  # the initial PING, then the probe of the path MTU
            sent(connection)
            everything = wire.AckPacket([(0, connection.stats().next_packet_number)], 0, 1 << 20, 1 << 20, 0, 0, 0)
            receive(connection, wire.encode_ack(LOCAL, number, everything))
        assert sent(connection) == []
        due_ns = connection.poll_timeout()
        assert due_ns == START + CONFIG.idle_timeout_ns // KEEP_ALIVES_PER_IDLE_TIMEOUT
        connection.handle_timeout(due_ns)
        assert kinds(sent(connection, due_ns)) == [wire.PacketType.PING]

    def test_a_peer_that_acknowledges_nothing_is_given_up(self) -> None:
        """Nothing arrives at the peer, or the peer would make this side remember its packets forever."""
        connection = client()
        sent(connection)
        for second in range(1, 30):
            now_ns = START + second * SECOND
            receive(connection, ping(second), now_ns=now_ns)
            connection.handle_timeout(now_ns)
            sent(connection, now_ns)
        assert state_of(connection) is ConnectionState.ESTABLISHED
        end_ns = START + CONFIG.idle_timeout_ns
        due_ns = connection.poll_timeout()
        assert due_ns is not None
        assert due_ns <= end_ns
        connection.handle_timeout(end_ns)
        assert state_of(connection) is ConnectionState.CLOSED
        assert (
            connection.close_reason
            == "the peer acknowledged nothing for 30 s; check that it and the path to it are still up"
        )

    @pytest.mark.parametrize("most_packets", [1 << 20, 1000])
    def test_a_peer_that_is_held_up_may_acknowledge_nothing_while_little_has_to_be_remembered(
        self, monkeypatch: pytest.MonkeyPatch, most_packets: int
    ) -> None:
        monkeypatch.setattr("toolkit.rudp.loss_recovery._MAX_HELD_UP_PACKETS", most_packets)
        connection = client()
        for second in range(300):
            now_ns = START + second * SECOND
            receive(connection, ping(second, wire.Flags.HELD_UP), now_ns=now_ns)
            connection.handle_timeout(now_ns)
            sent(connection, now_ns)
            for _ in range(4):
                connection.poll_keep_alive(now_ns)
        is_open = state_of(connection) is ConnectionState.ESTABLISHED
        assert is_open == (most_packets > 1000)

    def test_an_acknowledgement_that_waited_for_a_file_says_nothing_of_the_path(self) -> None:
        """Although the peer's PING is handled late, with the time at which it was read from the socket."""
        connection = client()
        sent(connection)
        connection.poll_keep_alive(START + 60 * SECOND)
        receive(connection, ping(0, wire.Flags.HELD_UP), now_ns=START + SECOND)
        ack = wire.AckPacket([(0, 2)], 0, 1 << 20, 1 << 20, 0, 0, 0)
        receive(connection, wire.encode_ack(LOCAL, 1, ack), now_ns=START + 61 * SECOND)
        assert connection.stats().smoothed_rtt_ns == 40 * MS

    @pytest.mark.parametrize("which", ["oldest", "newest"])
    def test_the_time_without_acknowledgement_counts_from_the_oldest_packet_in_flight(self, which: str) -> None:
        """An ACK of the newest packet shows older ones lost; an ACK of the oldest does not."""
        connection = client()
        for second in range(0, 40, 2):
            now_ns = START + second * SECOND
            connection.handle_timeout(now_ns)
            sent(connection, now_ns)
            if which == "newest":
                number = connection.stats().next_packet_number - 1
            else:
                number = connection.sender.recovery.sent.least_unacked
            ack = wire.AckPacket([(number, number + 1)], 0, 1 << 20, 1 << 20, 0, 0, 0)
            if which == "newest" or second in (10, 20):
                receive(connection, wire.encode_ack(LOCAL, second, ack), now_ns=now_ns)
            else:
                receive(connection, ping(second), now_ns=now_ns)
        assert state_of(connection) is (ConnectionState.ESTABLISHED if which == "newest" else ConnectionState.CLOSED)

    def test_a_closed_port_ends_the_connection_if_it_persists(self) -> None:
        connection = client()
        connection.handle_unreachable(START)
        connection.handle_unreachable(START + UNREACHABLE_NS - 1)
        assert state_of(connection) is ConnectionState.ESTABLISHED
        connection.handle_unreachable(START + UNREACHABLE_NS)
        assert state_of(connection) is ConnectionState.CLOSED
        assert "port is closed" in connection.close_reason

    def test_a_closed_port_is_ignored_if_packets_arrive(self) -> None:
        connection = client()
        connection.handle_unreachable(START)
        receive(connection, ping(0), now_ns=START + 1)
        connection.handle_unreachable(START + UNREACHABLE_NS)
        assert state_of(connection) is ConnectionState.ESTABLISHED

    def test_a_closed_port_is_probed_at_a_limited_rate(self) -> None:
        """Each packet may cause another ICMP message at once, so an ICMP message must not cause a packet at once."""
        connection = client()
        packets = 0
        for now_ns in range(START, START + UNREACHABLE_NS, MS):
            connection.handle_unreachable(now_ns)
            connection.handle_timeout(now_ns)
            packets += len(sent(connection, now_ns))
        assert state_of(connection) is ConnectionState.ESTABLISHED
        assert 2 <= packets < 20


class TestClose:
    def test_is_sent_once_and_again_in_answer_to_late_packets(self) -> None:
        connection = client()
        sent(connection)
        connection.close(5, "the disk is full")
        connection.close(0, "")
        (close,) = sent(connection)
        assert wire.decode_close_untrusted(close) == (5, "the disk is full")
        assert sent(connection) == []
        for straggler in (data(3), ping(4)):
            receive(connection, straggler)
            assert kinds(sent(connection)) == [wire.PacketType.CLOSE]
        receive(connection, data(5, LOCAL ^ 1))
        assert sent(connection) == []

    def test_of_the_peer_keeps_what_arrived_before(self) -> None:
        connection = client()
        message = wire.DATA.pack(wire.PacketType.MESSAGE, 0, LOCAL, 1, 0) + b"\0\0\0\x02hi"
        receive(connection, message, wire.encode_close(LOCAL, 2, 3, "no"))
        assert state_of(connection) is ConnectionState.CLOSED
        assert connection.poll_message(START) == b"hi"
        assert (connection.close_code, connection.close_reason) == (3, "no")

    def test_of_the_peer_is_answered_once(self) -> None:
        connection = client()
        sent(connection)
        for number in (1, 2):
            receive(connection, wire.encode_close(LOCAL, number, 3, "no"))
            assert kinds(sent(connection)) == [wire.PacketType.CLOSE] * (number == 1)

    def test_is_repeated_until_the_peer_answers(self) -> None:
        connection = client()
        for _ in range(2):
            connection.close(0, "done")
            assert kinds(sent(connection)) == [wire.PacketType.CLOSE]
        receive(connection, wire.encode_close(LOCAL, 1, 0, "done"))
        connection.close(0, "done")
        assert sent(connection) == []

    @pytest.mark.parametrize("connection_id", [PEER, LOCAL ^ 1])
    def test_requires_the_right_connection_id(self, connection_id: int) -> None:
        connection = client()
        receive(connection, wire.encode_close(connection_id, 2, 3, "no"))
        assert state_of(connection) is ConnectionState.ESTABLISHED


class TestPath:
    NEW = ("192.0.2.7", 5555)
    OLD = ("192.0.2.1", 4444)

    def moved(self) -> Connection:
        connection = Connection(CONFIG, MessageBuffer(), LOCAL, PEER, 1472, START, Unprotected(), peer_address=self.OLD)
        sent(connection)
        packet = ping(0)
        connection.handle_off_path_batch(Batch(memoryview(packet), len(packet)), self.NEW, 0xC0DE, START)
        return connection

    def challenges(self, connection: Connection, now_ns: int = START) -> list[Transmit]:
        found = []
        while (transmit := connection.poll_transmit(now_ns)) is not None:
            if transmit.destination is not None:
                found.append(transmit._replace(data=memoryview(bytes(transmit.data))))
        return found

    def test_a_new_path_is_used_only_after_validation(self) -> None:
        connection = self.moved()
        (challenge,) = self.challenges(connection)
        assert challenge.destination == self.NEW
        assert wire.PATH.unpack_untrusted(challenge.data)[-1] == 0xC0DE
        assert connection.peer_address == self.OLD
        receive(connection, wire.PATH.pack(wire.PacketType.PATH_RESPONSE, 0, LOCAL, 1, 0xC0DE ^ 1))
        assert connection.stats().packets_invalid == 1
        assert connection.peer_address == self.OLD
        receive(connection, wire.PATH.pack(wire.PacketType.PATH_RESPONSE, 0, LOCAL, 2, 0xC0DE))
        assert connection.peer_address == self.NEW

    def test_a_new_path_begins_with_an_acknowledgement_and_a_ping(self) -> None:
        connection = self.moved()
        sent(connection)
        receive(connection, wire.PATH.pack(wire.PacketType.PATH_RESPONSE, 0, LOCAL, 1, 0xC0DE))
        assert kinds(sent(connection))[:2] == [wire.PacketType.ACK, wire.PacketType.PING]

    def test_only_small_challenges_are_sent_to_an_unvalidated_address(self) -> None:
        connection = self.moved()
        total = 0
        for now_ns in range(START, START + 20 * SECOND, 50 * MS):
            connection.handle_timeout(now_ns)
            for challenge in self.challenges(connection, now_ns):
                assert challenge.data[0] == wire.PacketType.PATH_CHALLENGE
                total += len(challenge.data)
        assert 0 < total <= 5 * wire.PATH.size

    def test_a_failed_candidate_is_tried_again_when_something_new_arrives_from_it(self) -> None:
        connection = self.moved()
        now_ns = START
        for number in range(1, 60):
            connection.handle_timeout(now_ns)
            found = self.challenges(connection, now_ns)
            if found and wire.PATH.unpack_untrusted(found[0].data)[-1] != 0xC0DE:
                break
            now_ns += 500 * MS
            packet = ping(number)
            connection.handle_off_path_batch(Batch(memoryview(packet), len(packet)), self.NEW, 0xC0DE + number, now_ns)
        assert len(found) == 1
        challenge = found[0]
        assert challenge.destination == self.NEW
        value = wire.PATH.unpack_untrusted(challenge.data)[-1]
        receive(connection, wire.PATH.pack(wire.PacketType.PATH_RESPONSE, 0, LOCAL, 100, value), now_ns=now_ns)
        assert connection.peer_address == self.NEW

    def test_a_replayed_packet_from_another_address_starts_no_validation(self) -> None:
        connection = server()
        sent(connection)
        receive(connection, ping(0))
        connection.handle_off_path_batch(Batch(memoryview(ping(0)), len(ping(0))), self.NEW, 0xC0DE, START)
        assert self.challenges(connection) == []

    def test_a_challenge_is_answered_by_its_value(self) -> None:
        connection = client()
        receive(connection, wire.PATH.pack(wire.PacketType.PATH_CHALLENGE, 0, LOCAL, 1, 0xFACE))
        (response,) = [d for d in sent(connection) if d[0] == wire.PacketType.PATH_RESPONSE]
        assert wire.PATH.unpack_untrusted(response)[-1] == 0xFACE

    def test_the_number_of_pending_responses_is_limited(self) -> None:
        connection = client()
        for n in range(100):
            receive(connection, wire.PATH.pack(wire.PacketType.PATH_CHALLENGE, 0, LOCAL, n, n))
        assert kinds(sent(connection)).count(wire.PacketType.PATH_RESPONSE) <= 4


def test_received_ecn_marks_are_counted_per_packet() -> None:
    connection = client()
    joined = b"".join(data(n, offset=n) for n in range(10))
    connection.handle_batch(Batch(memoryview(joined), len(data(0)), ecn=0b11), START)
    (ack,) = [d for d in sent(connection) if d[0] == wire.PacketType.ACK]
    assert wire.decode_ack_untrusted(ack).ce_count == 10
