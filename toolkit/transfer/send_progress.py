"""How far a sender has got, as its user sees it: what the receiver's system has acknowledged, not what was handed over.

A channel takes megabytes at once and sends them at the speed of the path, so a count of what was handed over is far
ahead of the truth. Reports come from a thread of their own, because a call that sends may take many seconds.

A tree is scanned a second time, ahead of the session, to know its totals. The session itself scans as it sends.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from toolkit.channel import Channel
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.result import Progress, ProgressCallback
from toolkit.transfer.scan import SourceEntry

REPORT_INTERVAL_S = 0.2


class _SentFile(NamedTuple):
    """A file whose content begins after `start_bytes` of the session's content; its size is None for a stream."""

    start_bytes: int
    name: str
    size_bytes: int | None


class SendProgress:
    """Counts what a session hands to its channel and reports what has arrived of it.

    Counts are of content, without holes. One thread calls the `on_...` methods.

    report: is called from another thread, about every REPORT_INTERVAL_S, if something has changed; None for no reports.
            What it raises ends the session: see `check`
    totals: files and bytes, if they are known from the start
    """

    def __init__(
        self, channel: Channel, report: ProgressCallback | None, totals: tuple[int | None, int | None]
    ) -> None:
        self._channel = channel
        self._report = report
        self._total_files, self._total_bytes = totals
        self._has_sizes = self._total_files is not None  # with holes; a scan counts without
        self._left_out_files = self._left_out_bytes = 0  # of the totals: refused files, and holes
        self._handed_bytes = 0
        self._kept_bytes = 0  # of those: what the receiver had
        self._begun_files = 0
        self._arrived_bytes = 0
        self._files: deque[_SentFile] = deque()  # those whose content has not arrived as a whole
        self._last: Progress | None = None
        self._is_over = threading.Event()
        self._failure: BaseException | None = None  # what `report` has raised

    def check(self) -> None:
        """Raise in the session's thread what `report` has raised in its own."""
        if self._failure is not None:
            raise self._failure

    def on_file(self, name: str, size_bytes: int | None) -> None:
        """The content of this file follows; `size_bytes` is without holes."""
        self._begun_files += 1
        if self._report is not None:
            self._files.append(_SentFile(self._handed_bytes, name, size_bytes))

    def on_content(self, length: int) -> None:
        """Content is about to be handed to the channel."""
        self._handed_bytes += length

    def on_kept(self, length: int) -> None:
        """The receiver has this much already, as far as is known; negative if that turns out wrong."""
        self._handed_bytes += length
        self._kept_bytes += length

    def on_offered(self, entries: Iterable[Entry]) -> None:
        """These entries were offered: their holes are known."""
        if self._has_sizes:
            self._left_out_bytes += sum(entry.hole_bytes for entry in entries)

    def on_refused(self, entry: Entry) -> None:
        """This file will not be sent."""
        self._left_out_files += 1
        self._left_out_bytes += entry.content_bytes

    def count_ahead(self, entries: Callable[[], Iterable[SourceEntry]]) -> None:
        """Count all entries in the background, unless the totals are known or nobody wants them."""
        if self._report is not None and not self._has_sizes:
            with suppress(RuntimeError):  # no thread is left
                threading.Thread(target=self._count, args=(entries,), name="scan ahead", daemon=True).start()

    def _count(self, entries: Callable[[], Iterable[SourceEntry]]) -> None:
        files = size_bytes = 0
        for source in entries():
            if self._is_over.is_set() or source.entry.size_bytes is None:
                return  # a stream: how much it holds is known at its end
            if source.entry.kind is EntryKind.FILE:
                files += 1
                size_bytes += source.entry.content_bytes
        self._total_files, self._total_bytes = files, size_bytes

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Report while the block runs, and once more after it: then everything has arrived, unless it raised.

        Raises what `report` raises, even if the block has failed besides.
        """
        if self._report is None:
            yield
            return
        reporter = threading.Thread(target=self._run, args=(self._report,), name="progress", daemon=True)
        with suppress(RuntimeError):  # no thread is left: there is one report, at the end
            reporter.start()
        try:
            try:
                yield
            finally:
                self._is_over.set()
                if reporter.ident is not None:
                    reporter.join()
        except Exception:
            self.check()
            raise
        self.check()
        self._arrived_bytes = self._handed_bytes
        self._tell(self._report)

    def _run(self, report: ProgressCallback) -> None:
        try:
            while not self._is_over.wait(REPORT_INTERVAL_S):
                acknowledged_bytes = self._channel.acknowledged_bytes + self._kept_bytes
                self._arrived_bytes = max(self._arrived_bytes, min(acknowledged_bytes, self._handed_bytes))
                self._tell(report)
        except BaseException as error:
            self._failure = error

    def _tell(self, report: ProgressCallback) -> None:
        now = self._progress()
        if now != self._last:
            self._last = now
            report(now)

    def _progress(self) -> Progress:
        arrived_bytes, handed_bytes = self._arrived_bytes, self._handed_bytes
        files = self._files
        while len(files) > 1 and files[1].start_bytes <= arrived_bytes:
            files.popleft()
        current = files[0] if files else _SentFile(0, "", None)
        is_idle = arrived_bytes == handed_bytes
        has_all = self._is_over.is_set() and is_idle
        return Progress(
            current.name,
            max(0, self._begun_files - (0 if has_all else len(files))),
            arrived_bytes,
            None if self._total_files is None else self._total_files - self._left_out_files,
            None if self._total_bytes is None else self._total_bytes - self._left_out_bytes,
            arrived_bytes - current.start_bytes,
            current.size_bytes,
            is_idle,
        )
