"""Figures of round trips: loss, order, percentiles, and the jitter of RFC 3550."""

import pytest

from toolkit.conversation.round_trips import EchoRoundTrips

MS = 1_000_000


def measured(*replies: tuple[int, int], sent: int = 4, spacing_ms: int = 10) -> EchoRoundTrips:
    """Probes `spacing_ms` apart, and replies: (number, when in ms)."""
    trips = EchoRoundTrips()
    for number in range(sent):
        trips.on_sent(number, number * spacing_ms * MS)
    for number, at_ms in replies:
        trips.on_reply(number, at_ms * MS)
    return trips


def test_probes_without_a_reply_are_lost() -> None:
    trips = measured((0, 40), (2, 60), (3, 70))
    assert (trips.sent, trips.answered, trips.loss) == (4, 3, 0.25)
    assert trips.fields()["rtt_p50_ms"] == 40.0


def test_a_reply_behind_that_to_a_later_probe_is_reordered() -> None:
    trips = measured((0, 40), (2, 60), (1, 61), (3, 70))
    assert (trips.reordered, trips.duplicates) == (1, 0)


def test_a_second_reply_is_a_duplicate_and_changes_no_time() -> None:
    trips = measured((0, 40), (0, 400))
    assert (trips.answered, trips.duplicates, trips.times_ns[0]) == (1, 1, 40 * MS)


def test_a_reply_to_nothing_is_ignored() -> None:
    assert measured((7, 40)).answered == 0


def test_jitter_is_that_of_rfc_3550() -> None:
    # Round trips of 40, 56, 40 ms: J = 16/16 = 1, then 1 + (16 - 1)/16.
    trips = measured((0, 40), (1, 66), (2, 60))
    assert trips.jitter_ns == pytest.approx(1.9375 * MS)


def test_the_histogram_counts_every_reply_and_fits() -> None:
    lines = measured(*[(number, 40 + number * number) for number in range(100)], sent=100, spacing_ms=0).histogram()
    assert sum(int(line[26:32]) for line in lines) == 100
    assert all(len(line) <= 80 for line in lines)
    assert measured((0, 40)).histogram() == []


def test_the_path_has_quantiles_of_its_own_where_it_is_measured() -> None:
    trips = measured((0, 42), (1, 52))
    assert not any(name.startswith("path") for name in trips.fields())
    trips.path_times_ns += [39 * MS, 40 * MS, 41 * MS]
    fields = trips.fields()
    assert [fields[f"path_rtt_{name}_ms"] for name in ("min", "p50", "max")] == [39.0, 40.0, 41.0]
    assert fields["rtt_p50_ms"] == 42.0


def test_without_replies_there_are_no_times() -> None:
    assert not any(name.startswith("rtt") for name in measured().fields())
