"""What a user is told about a session."""

from pathlib import Path

from tests.support.sessions import channel_pair
from toolkit.api.results import SessionResult
from toolkit.cli.results import (
    delivered_lines,
    failure_lines,
    path_line,
    socket_buffer_hint,
    summary_line,
    undelivered_lines,
    unfinished_lines,
)
from toolkit.rudp.flow_control import WANTED_SOCKET_BUFFER_BYTES
from toolkit.transfer import TransferResult
from toolkit.transfer.result import DeliveredFile, DeliveryStatus, UndeliveredEntry, UnfinishedEntry


def seen(result: TransferResult) -> SessionResult:
    """What the API makes of it."""
    with channel_pair() as (channel, _):
        return SessionResult.of("tcp", channel, result, 1.0, 0.1)


def test_names_the_setting_that_limits_the_buffer_of_a_socket_that_has_dropped() -> None:
    hint = socket_buffer_hint({"socket_drops": 7, "receive_buffer_bytes": 425_984})
    assert hint is not None
    assert "7 datagrams" in hint
    assert "net.core.rmem_max=16777216" in hint


def test_every_file_that_failed_has_a_line_unless_it_is_the_only_one() -> None:
    result = TransferResult("xxh3-128")
    result.add_undelivered(UndeliveredEntry("link", DeliveryStatus.SKIPPED, "symbolic link"))
    result.add_undelivered(UndeliveredEntry("a", DeliveryStatus.FAILED, "already exists"))
    assert failure_lines(seen(result)) == []
    result.add_undelivered(UndeliveredEntry("b", DeliveryStatus.MISMATCHED, ""))
    assert failure_lines(seen(result)) == ["mismatched b: mismatched", "failed a: already exists"]


def test_says_nothing_without_drops_or_where_no_setting_helps() -> None:
    assert socket_buffer_hint({"socket_drops": 0, "receive_buffer_bytes": 425_984}) is None
    assert socket_buffer_hint({"socket_drops": 7, "receive_buffer_bytes": WANTED_SOCKET_BUFFER_BYTES}) is None
    assert socket_buffer_hint({"transport": "tcp"}) is None


def delivered(count: int, directory: Path | None = None) -> SessionResult:
    """A result with so many files, the first thousand of which it names."""
    names = [f"tree/{number}" for number in range(min(count, 1000))]
    files = [DeliveredFile(name, 1024, "abcd", None if directory is None else directory / name) for name in names]
    return seen(TransferResult("xxh3-128", count, 1024 * count, delivered=files))


def test_names_each_file_and_where_it_is() -> None:
    assert delivered_lines(delivered(2, Path("incoming"))) == ["  incoming/tree/0", "  incoming/tree/1"]
    assert delivered_lines(delivered(1)) == ["  tree/0"]


def test_digests_are_for_those_who_ask() -> None:
    assert delivered_lines(delivered(1), is_verbose=True) == ["  tree/0  (1 KiB, xxh3-128 abcd)"]


def test_many_files_are_listed_up_to_a_limit_and_then_counted() -> None:
    assert delivered_lines(delivered(41))[-1] == "  and 31 more"
    assert delivered_lines(delivered(5000), is_verbose=True)[-1] == "  and 4000 more"


def test_many_skipped_entries_are_listed_up_to_a_limit_and_then_counted() -> None:
    result = TransferResult("xxh3-128")
    for number in range(1500):
        result.add_undelivered(UndeliveredEntry(f"{number}", DeliveryStatus.SKIPPED, "symbolic link"))
    lines = list(undelivered_lines(seen(result), (DeliveryStatus.SKIPPED,)))
    assert (len(lines), lines[0], lines[-1]) == (11, "skipped 0: symbolic link", "skipped 1490 more")
    assert list(undelivered_lines(seen(result), (DeliveryStatus.SKIPPED,), is_verbose=True))[-1] == "skipped 500 more"


def test_refused_files_are_listed() -> None:
    result = TransferResult("xxh3-128")
    for name in ("a", "b"):
        result.add_undelivered(UndeliveredEntry(name, DeliveryStatus.REFUSED, "already exists"))
    assert failure_lines(seen(result)) == ["refused a: already exists", "refused b: already exists"]


def test_a_tree_without_changes_has_no_rate() -> None:
    fields = {"files": 0, "bytes": 0, "hole_bytes": 0, "seconds": 0.25, "goodput_bps": 0.0, "unchanged": 300}
    assert summary_line(fields) == "0 files in 250 ms, 300 unchanged"


def test_what_to_do_about_many_files_is_told_once() -> None:
    result = TransferResult("xxh3-128")
    for name in ("a", "b"):
        result.add_undelivered(UndeliveredEntry(name, DeliveryStatus.REFUSED, "already exists; use --update"))
    result.add_undelivered(UndeliveredEntry("c", DeliveryStatus.FAILED, "no space; free some"))
    assert failure_lines(seen(result)) == [
        "refused a: already exists; use --update",
        "refused b: already exists",
        "failed c: no space; free some",
    ]


def test_many_unfinished_files_are_listed_up_to_a_limit_and_then_counted() -> None:
    result = TransferResult("xxh3-128", unfinished=[UnfinishedEntry(f"{n}", 1 << 20, 2 << 20) for n in range(12)])
    lines = unfinished_lines(seen(result))
    assert lines[:2] == ["kept 12 MiB of 12 unfinished files; send them again to go on", "  1 MiB of 2 MiB of 0"]
    assert (len(lines), lines[-1]) == (12, "  and 2 more")
    assert len(unfinished_lines(seen(result), is_verbose=True)) == 13
    result.unfinished = result.unfinished[:1]
    assert unfinished_lines(seen(result)) == ["kept 1 MiB of 2 MiB of 0; send it again to go on"]


def test_says_what_the_path_did() -> None:
    fields = {"transport": "udp", "congestion_control": "bbr", "encryption": "AES-256-GCM", "rtt_ms": 40.123}
    fields |= {"rtt_min_ms": 40.0, "packets_sent": 100, "packets_retransmitted": 3}
    assert path_line(fields) == (
        "  udp, bbr, AES-256-GCM: RTT 40.1 ms (at least 40 ms), 100 packets sent, 3 of them again"
    )


def test_holes_are_named_so_that_size_and_rate_agree() -> None:
    fields = {"files": 1, "bytes": 1 << 20, "hole_bytes": 1 << 19, "seconds": 2.0, "goodput_bps": 2e6, "unchanged": 0}
    assert summary_line(fields) == "1 file, 1 MiB (512 KiB of holes) in 2 s, 2 Mbit/s"
