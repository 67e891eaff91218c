"""What a sender's user is told: what has arrived, of how much, and which file it is."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.support.background import PATIENCE_S
from tests.support.sessions import Ends, file_entry
from toolkit.channel import Channel
from toolkit.transfer import Progress, SendOptions, receive, send
from toolkit.transfer.scan import SourceEntry
from toolkit.transfer.send_progress import SendProgress


class AcknowledgingChannel:
    """A channel whose peer acknowledges as much as the test says."""

    acknowledged_bytes = 0


class Reports:
    """What a SendProgress reports."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        self._has_one = threading.Condition()

    def __call__(self, now: Progress) -> None:
        with self._has_one:
            self.seen.append(now)
            self._has_one.notify_all()

    def wait_for(self, is_wanted: Callable[[Progress], bool]) -> Progress:
        """Wait until the last report is a wanted one, and return it."""
        with self._has_one:
            assert self._has_one.wait_for(lambda: bool(self.seen) and is_wanted(self.seen[-1]), PATIENCE_S), self.seen
            return self.seen[-1]


@pytest.fixture(autouse=True)
def quick_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.transfer.send_progress.REPORT_INTERVAL_S", 0.001)


@pytest.fixture
def channel() -> AcknowledgingChannel:
    return AcknowledgingChannel()


def progress_of(
    channel: AcknowledgingChannel, reports: Reports, totals: tuple[int | None, int | None] = (None, None)
) -> SendProgress:
    return SendProgress(cast("Channel", channel), reports, totals)


def test_what_was_handed_over_has_not_arrived(channel: AcknowledgingChannel) -> None:
    reports = Reports()
    progress = progress_of(channel, reports, (2, 3000))
    with progress.reporting():
        progress.on_file("a", 1000)
        progress.on_content(1000)
        progress.on_file("b", 2000)
        progress.on_content(2000)
        assert reports.wait_for(lambda _: True).size_bytes == 0
        channel.acknowledged_bytes = 1500
        now = reports.wait_for(lambda now: now.size_bytes > 0)
        assert now == Progress("b", 1, 1500, 2, 3000, 500, 2000)
        channel.acknowledged_bytes = 3000
        reports.wait_for(lambda now: now.is_idle)
    assert reports.seen[-1] == Progress("b", 2, 3000, 2, 3000, 2000, 2000, is_idle=True)


def test_a_count_never_goes_back(channel: AcknowledgingChannel) -> None:
    reports = Reports()
    progress = progress_of(channel, reports, (2, 2000))
    with progress.reporting():
        progress.on_file("a", 1000)
        channel.acknowledged_bytes = 800  # includes messages, or a queue that was read a moment too early
        progress.on_content(1000)
        reports.wait_for(lambda now: now.size_bytes == 800)
        channel.acknowledged_bytes = 700
        progress.on_refused(file_entry(b"refused", 1000))  # something to report
        reports.wait_for(lambda now: now.total_files == 1)
        assert [now.size_bytes for now in reports.seen] == sorted(now.size_bytes for now in reports.seen)


def test_what_the_receiver_had_has_arrived(channel: AcknowledgingChannel) -> None:
    reports = Reports()
    progress = progress_of(channel, reports)
    with progress.reporting():
        progress.on_file("a", 1000)
        progress.on_kept(600)
        reports.wait_for(lambda now: now.size_bytes == 600)
        progress.on_content(400)
        channel.acknowledged_bytes = 400
        reports.wait_for(lambda now: now.size_bytes == 1000)


def test_messages_that_were_acknowledged_are_no_content(channel: AcknowledgingChannel) -> None:
    reports = Reports()
    progress = progress_of(channel, reports)
    channel.acknowledged_bytes = 5000
    with progress.reporting():
        progress.on_file("a", 1000)
        progress.on_content(1000)
        reports.wait_for(lambda now: now.is_idle)
    assert {now.size_bytes for now in reports.seen} <= {0, 1000}


def test_nothing_is_reported_twice() -> None:
    reports = Reports()
    asked = threading.Semaphore(0)

    class Asked(AcknowledgingChannel):
        @property
        def acknowledged_bytes(self) -> int:  # type: ignore[override]
            asked.release()
            return 0

    with progress_of(Asked(), reports).reporting():
        for _ in range(3):
            assert asked.acquire(timeout=PATIENCE_S)
    assert len(reports.seen) == len(set(reports.seen))


def test_holes_and_refused_files_are_no_part_of_the_total(channel: AcknowledgingChannel) -> None:
    reports = Reports()
    progress = progress_of(channel, reports, (3, 10_000))
    sparse, refused = file_entry(b"sparse", 8000, content=100), file_entry(b"refused", 1000)
    with progress.reporting():
        progress.on_offered([sparse, refused, file_entry(b"c", 1000)])
        progress.on_refused(refused)
        progress.on_file("sparse", 100)
        progress.on_content(100)
    assert (reports.seen[-1].total_files, reports.seen[-1].total_bytes) == (2, 1100)


def test_a_tree_is_counted_ahead(channel: AcknowledgingChannel) -> None:
    reports = Reports()
    progress = progress_of(channel, reports)
    entries = [SourceEntry(file_entry(b"t/%d" % number, 1000, content=10)) for number in range(5)]
    with progress.reporting():
        progress.count_ahead(lambda: entries)
        reports.wait_for(lambda now: now.total_files is not None)
    assert (reports.seen[-1].total_files, reports.seen[-1].total_bytes) == (5, 50)


def test_a_tree_with_a_stream_has_no_total(channel: AcknowledgingChannel) -> None:
    reports = Reports()
    progress = progress_of(channel, reports)
    has_ended = threading.Event()

    def entries() -> Iterator[SourceEntry]:
        try:
            yield SourceEntry(file_entry(b"t/file", 1000))
            yield SourceEntry(file_entry(b"t/stream", None))
        finally:
            has_ended.set()

    with progress.reporting():
        progress.count_ahead(entries)
        assert has_ended.wait(PATIENCE_S)
        progress.on_file("t/file", 1000)
    assert reports.seen[-1].total_bytes is None


def test_the_count_of_a_tree_ends_with_its_session(channel: AcknowledgingChannel) -> None:
    reports = Reports()
    progress = progress_of(channel, reports)
    asked, has_ended = threading.Event(), threading.Event()

    def endless() -> Iterator[SourceEntry]:
        try:
            while True:
                asked.set()
                yield SourceEntry(file_entry(b"again"))
        finally:
            has_ended.set()

    with progress.reporting():
        progress.count_ahead(endless)
        assert asked.wait(PATIENCE_S)
    assert has_ended.wait(PATIENCE_S)


def test_a_session_reports_its_last_byte(ends: Ends, tmp_path: Path, root: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in ("a", "b"):
        (tmp_path / "tree" / name).write_bytes(bytes(1000))
    reports = Reports()
    receiver = threading.Thread(target=receive, args=(ends[1], root))
    receiver.start()
    send(ends[0], [tmp_path / "tree"], SendOptions(recursive=True), reports)
    receiver.join()
    assert (reports.seen[-1].files, reports.seen[-1].size_bytes, reports.seen[-1].is_idle) == (2, 2000, True)


def test_where_no_thread_is_left_there_is_one_report_at_the_end(
    channel: AcknowledgingChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reports = Reports()
    progress = progress_of(channel, reports)
    with progress.reporting():
        progress.count_ahead(list)
        progress.on_file("film", 10)
        progress.on_content(10)
    assert [(now.files, now.size_bytes) for now in reports.seen] == [(1, 10)]
