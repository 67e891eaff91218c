"""The path MTU search on paths of different sizes."""

import pytest

from toolkit.rudp.pmtud import (
    BASE_DATAGRAM_BYTES,
    MAX_PROBES,
    PMTU_RAISE_TIMER_NS,
    TRANSITIONS,
    MtuSearchEvent,
    MtuSearchState,
    PathMtu,
)

NOW = 5_000_000_000


def search(mtu: PathMtu, path_bytes: int, now_ns: int = NOW) -> list[int]:
    """Answer probes like a path that carries `path_bytes`, until the search ends; return the probed sizes."""
    tried: list[int] = []
    while (size := mtu.probe_size(now_ns)) is not None:
        assert len(tried) < 100, "the search does not end"
        tried.append(size)
        mtu.on_probe_sent()
        if size <= path_bytes:
            mtu.on_probe_acked(size, now_ns)
        else:
            mtu.on_probe_lost(size, now_ns)
    return tried


def test_a_path_as_large_as_the_interface_takes_one_probe() -> None:
    mtu = PathMtu(1472)
    assert mtu.datagram_bytes == BASE_DATAGRAM_BYTES
    assert search(mtu, 1472) == [1472]
    assert (mtu.datagram_bytes, mtu.state) == (1472, MtuSearchState.SEARCH_COMPLETE)
    assert mtu.next_timeout_ns is None


@pytest.mark.parametrize("path_bytes", [1200, 1201, 1215, 1252, 1392, 1432, 1452, 1464, 1471])
def test_a_narrower_path_is_found_to_within_one_percent(path_bytes: int) -> None:
    mtu = PathMtu(1472)
    tried = search(mtu, path_bytes)
    assert path_bytes - 16 < mtu.datagram_bytes <= path_bytes
    assert len(set(tried)) <= 7
    assert all(tried.count(size) == MAX_PROBES for size in tried if size > path_bytes)


def test_a_jumbo_interface_on_an_ordinary_path() -> None:
    """Ethernet's size is tried as soon as the largest has failed: most such paths carry it."""
    mtu = PathMtu(8972)
    tried = search(mtu, 1472)
    assert tried[: MAX_PROBES + 1] == [8972] * MAX_PROBES + [1472]
    assert mtu.datagram_bytes == 1472


@pytest.mark.parametrize("path_bytes", [1200, 1452, 1500, 4000, 8971])
def test_a_path_below_a_jumbo_interface_is_found_to_within_one_percent(path_bytes: int) -> None:
    mtu = PathMtu(8972)
    search(mtu, path_bytes)
    assert path_bytes - 16 < mtu.datagram_bytes <= path_bytes


def test_an_interface_below_the_base_size_is_not_searched() -> None:
    mtu = PathMtu(1000)
    assert mtu.probe_size(NOW) is None
    assert (mtu.datagram_bytes, mtu.state) == (BASE_DATAGRAM_BYTES, MtuSearchState.SEARCH_COMPLETE)


def test_one_probe_at_a_time() -> None:
    mtu = PathMtu(1472)
    size = mtu.probe_size(NOW)
    assert size is not None
    mtu.on_probe_sent()
    assert mtu.probe_size(NOW) is None


def test_a_probe_lost_by_chance_is_repeated() -> None:
    mtu = PathMtu(1472)
    for _ in range(MAX_PROBES - 1):
        mtu.on_probe_sent()
        mtu.on_probe_lost(1472, NOW)
    assert search(mtu, 1472) == [1472]
    assert mtu.datagram_bytes == 1472


def test_a_larger_size_is_tried_again_after_ten_minutes() -> None:
    mtu = PathMtu(1472)
    search(mtu, 1400)
    due_ns = NOW + PMTU_RAISE_TIMER_NS
    assert mtu.next_timeout_ns == due_ns
    assert mtu.probe_size(due_ns - 1) is None
    assert search(mtu, 1472, due_ns)[0] == 1472
    assert mtu.datagram_bytes == 1472


def test_a_black_hole_restarts_the_search_from_the_base_size() -> None:
    mtu = PathMtu(1472)
    search(mtu, 1472)
    for _ in range(3):
        mtu.on_packet_acked(BASE_DATAGRAM_BYTES)
        mtu.on_packets_lost(1472, 10)
    assert (mtu.datagram_bytes, mtu.state) == (BASE_DATAGRAM_BYTES, MtuSearchState.BASE)
    assert search(mtu, 1400)[0] == BASE_DATAGRAM_BYTES
    assert 1384 < mtu.datagram_bytes <= 1400


def test_a_burst_of_random_loss_is_no_black_hole() -> None:
    mtu = PathMtu(1472)
    search(mtu, 1472)
    for _ in range(50):
        mtu.on_packets_lost(1472, 500)
        mtu.on_packet_acked(600)
        mtu.on_packets_lost(1472, 500)
        mtu.on_packet_acked(1472)
    assert mtu.datagram_bytes == 1472


def test_a_dead_path_is_no_black_hole() -> None:
    """Nothing arrives, small or large, so the size is not the cause."""
    mtu = PathMtu(1472)
    search(mtu, 1472)
    for _ in range(50):
        mtu.on_packets_lost(1472, 20)
    assert mtu.datagram_bytes == 1472


def test_a_path_that_does_not_carry_the_base_size_is_an_error_until_it_does() -> None:
    mtu = PathMtu(1472)
    search(mtu, 1472)
    for _ in range(3):
        mtu.on_packet_acked(400)
        mtu.on_packets_lost(1472, 10)
    search(mtu, 1000)
    assert (mtu.datagram_bytes, mtu.state) == (BASE_DATAGRAM_BYTES, MtuSearchState.ERROR)
    mtu.on_packet_acked(BASE_DATAGRAM_BYTES)
    assert mtu.state is MtuSearchState.SEARCHING


def test_a_probe_from_before_a_black_hole_does_not_affect_the_new_search() -> None:
    mtu = PathMtu(1472)
    mtu.on_probe_sent()
    mtu.on_probe_acked(1472, NOW)
    for _ in range(3):
        mtu.on_packet_acked(400)
        mtu.on_packets_lost(1472, 10)
    for _ in range(MAX_PROBES):
        mtu.on_probe_lost(1472, NOW)
    assert mtu.state is MtuSearchState.BASE


def test_every_state_has_a_way_out() -> None:
    assert {state for state, _ in TRANSITIONS} == set(MtuSearchState)
    assert {event for _, event in TRANSITIONS} == set(MtuSearchEvent)
