"""The receive window: what is advertised, and how the window follows the socket."""

from toolkit.rudp.batch import MAX_BATCH_BYTES
from toolkit.rudp.flow_control import MAX_RECEIVE_WINDOW_BYTES, ReceiveWindow

WINDOW = 1 << 20


def test_advertises_a_window_beyond_the_received_data() -> None:
    window = ReceiveWindow(WINDOW)
    assert window.advertise(0) == WINDOW
    assert window.advertise(1000) == window.limit == WINDOW + 1000


def test_a_smaller_window_withdraws_nothing() -> None:
    window = ReceiveWindow(WINDOW)
    window.window_bytes = 1000
    assert window.advertise(0) == WINDOW
    assert window.advertise(WINDOW) == WINDOW + 1000


def test_is_used_up_once_the_peer_is_within_a_batch_of_the_limit() -> None:
    window = ReceiveWindow(WINDOW)
    assert not window.is_used_up(0)
    assert not window.is_used_up(WINDOW - MAX_BATCH_BYTES)
    assert window.is_used_up(WINDOW - MAX_BATCH_BYTES + 1)
    assert not ReceiveWindow(1).is_used_up(0)  # nothing has arrived


def test_doubles_after_a_window_of_data_that_used_it_up() -> None:
    window = ReceiveWindow(WINDOW)
    window.adapt(WINDOW, WINDOW, dropped_datagrams=0, is_drained=True)
    assert window.window_bytes == WINDOW
    window.adapt(WINDOW + 1, WINDOW, dropped_datagrams=0, is_drained=True)
    assert window.window_bytes == 2 * WINDOW
    window.adapt(2 * WINDOW, WINDOW, dropped_datagrams=0, is_drained=True)
    assert window.window_bytes == 2 * WINDOW


def test_does_not_grow_while_the_peer_is_not_limited_by_it() -> None:
    window = ReceiveWindow(WINDOW)
    window.adapt(10 * WINDOW, WINDOW - MAX_BATCH_BYTES, dropped_datagrams=0, is_drained=True)
    assert window.window_bytes == WINDOW


def test_a_queue_that_was_not_drained_starts_the_count_over() -> None:
    window = ReceiveWindow(WINDOW)
    window.adapt(WINDOW + 1, WINDOW, dropped_datagrams=0, is_drained=False)
    window.adapt(2 * WINDOW, WINDOW, dropped_datagrams=0, is_drained=True)
    assert window.window_bytes == WINDOW


def test_halves_on_each_drop_down_to_half_of_the_first_window() -> None:
    window = ReceiveWindow(WINDOW)
    window.window_bytes = 4 * WINDOW
    seen = []
    for drops in (1, 1, 5, 6, 7):
        window.adapt(0, 0, drops, is_drained=True)
        seen.append(window.window_bytes)
    assert seen == [2 * WINDOW, 2 * WINDOW, WINDOW, WINDOW // 2, WINDOW // 2]


def test_growth_ends_at_the_largest_window() -> None:
    window = ReceiveWindow(WINDOW)
    received = 0
    for _ in range(40):
        received += window.window_bytes + 1
        window.adapt(received, window.limit, dropped_datagrams=0, is_drained=True)
    assert window.window_bytes == MAX_RECEIVE_WINDOW_BYTES
