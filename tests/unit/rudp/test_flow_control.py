"""The receive window: what is advertised, and how the window follows the path and the socket."""

import pytest

from toolkit.rudp.flow_control import (
    GROWTH,
    INITIAL_DATA_WINDOW_BYTES,
    MAX_RECEIVE_WINDOW_BYTES,
    ReceiveWindow,
    initial_window_bytes,
)

WINDOW = 1 << 20
RTT = 40_000_000
SECOND = 1_000_000_000


class Peer:
    """Data that arrives round by round, and drops at the socket."""

    def __init__(self, window: ReceiveWindow) -> None:
        self.window = window
        self.now_ns = SECOND
        self.end = 0
        self.drops = 0
        self.measurements = 0
        self.rtt_ns = RTT
        self.measure()
        window.adapt(0, 0, is_drained=True, now_ns=self.now_ns)

    def measure(self) -> None:
        self.window.on_rtt(self.rtt_ns, self.now_ns)

    def round(self, arrived_bytes: int, drops: int = 0, is_drained: bool = True) -> int:
        """One round trip with these arrivals in four equal parts, the drops in the last; the window after it."""
        for part in range(4):
            self.now_ns += self.rtt_ns // 4
            self.end += arrived_bytes // 4
            self.drops += drops if part == 3 else 0
            self.window.adapt(self.end, self.drops, is_drained, self.now_ns)
            self.measurements += self.window.wants_rtt(self.end, self.now_ns)
        return self.window.window_bytes


def test_the_first_window_is_a_quarter_of_the_socket_buffer() -> None:
    assert initial_window_bytes(32 << 20) == 8 << 20
    assert initial_window_bytes(1000) == INITIAL_DATA_WINDOW_BYTES


def test_advertises_a_window_beyond_the_received_data() -> None:
    window = ReceiveWindow(WINDOW)
    assert window.advertise(0) == WINDOW
    assert window.advertise(1000) == window.limit == WINDOW + 1000


def test_a_smaller_window_withdraws_nothing() -> None:
    window = ReceiveWindow(WINDOW)
    window.window_bytes = 1000
    assert window.advertise(0) == WINDOW
    assert window.advertise(WINDOW) == WINDOW + 1000


def test_follows_what_arrives_in_a_round_trip() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    peer.round(WINDOW // (2 * GROWTH))
    assert peer.round(WINDOW // (2 * GROWTH)) == WINDOW
    peer.round(WINDOW)
    assert peer.round(WINDOW) == GROWTH * WINDOW


def test_grows_within_a_round_trip() -> None:
    window = ReceiveWindow(WINDOW)
    peer = Peer(window)
    peer.round(WINDOW)
    window.adapt(peer.end + 2 * WINDOW, 0, is_drained=True, now_ns=peer.now_ns + RTT // 2)
    assert window.window_bytes == 2 * GROWTH * WINDOW


@pytest.mark.parametrize("window_bytes", [1 << 16, WINDOW])
def test_never_limits_a_peer_whose_rate_grows_by_four(window_bytes: int) -> None:
    """The limit that a peer knows when it sends is that of the round before."""
    window = ReceiveWindow(window_bytes)
    peer = Peer(window)
    arrives = 15_000
    while arrives < MAX_RECEIVE_WINDOW_BYTES // 8:
        assert peer.end + arrives <= window.advertise(peer.end)
        peer.round(arrives)
        arrives *= 4


def test_does_not_grow_while_the_queue_of_the_socket_is_not_drained() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(5):
        assert peer.round(WINDOW, is_drained=False) == WINDOW


def test_does_not_grow_before_a_round_trip_time_is_known() -> None:
    window = ReceiveWindow(WINDOW)
    window.on_rtt(RTT, None)
    window.adapt(10 * WINDOW, 0, is_drained=True, now_ns=SECOND)
    assert window.window_bytes == WINDOW


def test_asks_for_a_first_round_trip_time_after_a_quarter_of_a_window() -> None:
    window = ReceiveWindow(WINDOW)
    assert not window.wants_rtt(WINDOW // 4, SECOND)
    assert window.wants_rtt(WINDOW // 4 + 1, SECOND)


def test_asks_for_no_round_trip_time_before_a_window_of_data_has_arrived() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(100):
        peer.round(WINDOW // 100)
    assert peer.measurements == 0
    peer.round(WINDOW // 10)
    assert peer.measurements == 1


def test_asks_for_a_round_trip_time_at_most_once_a_second() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(24):
        peer.round(WINDOW)
    assert peer.measurements == 0
    for _ in range(2):
        peer.round(WINDOW)
    assert peer.measurements == 1
    for _ in range(25):
        peer.round(WINDOW)
    assert peer.measurements == 2  # the first was not answered
    for _ in range(100):
        peer.round(0)
    assert peer.measurements == 2


def test_a_sample_that_came_unasked_delays_the_question() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(100):
        peer.round(WINDOW)
        peer.measure()
    assert peer.measurements == 0


def test_a_path_that_became_longer_has_a_larger_window() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(10):
        peer.round(WINDOW)
    peer.rtt_ns = 8 * RTT
    for _ in range(60):
        peer.measure()
        peer.round(4 * WINDOW)
    assert peer.window.window_bytes == 4 * GROWTH * WINDOW


def test_a_drop_leaves_what_arrives_in_a_round_trip() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(4):
        peer.round(2 * WINDOW)
    assert peer.window.window_bytes == 2 * GROWTH * WINDOW
    assert peer.round(2 * WINDOW, drops=3) == 2 * WINDOW
    assert peer.window.is_socket_limited


def test_drops_leave_at_least_half_of_the_first_window() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(10):
        peer.round(WINDOW, drops=1)
    assert peer.window.window_bytes == WINDOW // 2


def test_recovers_from_a_drop_step_by_step() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(4):
        peer.round(2 * WINDOW)
    peer.round(2 * WINDOW, drops=1)
    assert 2.2 * WINDOW < peer.round(2 * WINDOW) < 2.3 * WINDOW
    for _ in range(24):
        peer.round(2 * WINDOW)
    assert peer.window.window_bytes == 2 * GROWTH * WINDOW
    assert not peer.window.is_socket_limited


def test_growth_ends_at_the_largest_window() -> None:
    peer = Peer(ReceiveWindow(WINDOW))
    for _ in range(3):
        peer.round(MAX_RECEIVE_WINDOW_BYTES)
    assert peer.window.window_bytes == MAX_RECEIVE_WINDOW_BYTES
