"""Spreads a session over several connections: two threads, one each way, for every connection beyond the first.

The channel's own thread uses the first connection, and sends and receives content on it too. All connections take
slices from one queue as soon as they have room, so a connection that stalls delays one slice and not the session.
"""

import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil

from toolkit.channel import Extent, ExtentSink, ExtentSource
from toolkit.errors import PeerClosedError, ProtocolError, TransferError
from toolkit.transports.tcp.stream import SLICE_BYTES, SMALL_BYTES, TcpStream

_BACKLOG_SLICES = 4
"""Queued slices per connection: enough that none runs dry while the channel's own thread sends a slice."""


class _ExtentInFlight:
    """An extent whose slices are queued or being sent; its source is released after the last slice.

    A session that fails may close its files while a thread still sends. A duplicate of the descriptor keeps that
    thread from sending from whichever file gets the number next.
    """

    def __init__(self, extent: Extent, source: ExtentSource, slices: int, needs_descriptor: bool) -> None:
        self.extent = extent
        self.source = source
        self.slices_left = slices
        self.descriptor: int | None = None
        self._is_released = False
        descriptor = source.fileno() if needs_descriptor and extent.length > SMALL_BYTES else None
        if descriptor is not None:
            try:
                self.descriptor = os.dup(descriptor)
            except OSError as error:
                raise TransferError(f"cannot open another file: {(error.strerror or str(error)).lower()}") from error

    def release(self) -> None:
        """Do it once, also if `StreamPool.stop` is interrupted and called again: another file may have the number."""
        if not self._is_released:
            self._is_released = True
            if self.descriptor is not None:
                os.close(self.descriptor)
            self.source.release(self.extent)


def slices(extent: Extent) -> list[Extent]:
    """Cut an extent into pieces of at most SLICE_BYTES."""
    file_id, offset, length = extent
    if 0 < length <= SLICE_BYTES:
        return [extent]
    starts = range(offset, offset + length, SLICE_BYTES)
    return [Extent(file_id, start, min(SLICE_BYTES, offset + length - start)) for start in starts]


class StreamPool:
    """Sends and receives over all `streams`; only the calling thread uses the first."""

    def __init__(self, streams: Sequence[TcpStream]) -> None:
        self._streams = streams
        self._first = streams[0]
        self._others = streams[1:]
        self._condition = threading.Condition()  # guards everything down to `_failure`
        self._queue: deque[tuple[Extent, _ExtentInFlight]] = deque()
        self._busy = 0  # slices being sent
        self._is_stopping = False
        self._failure: Exception | None = None
        self._has_raised = False
        self._senders: list[threading.Thread] = []
        self._receivers: list[threading.Thread] = []
        self._receiving = 0  # threads that still receive
        self._reported_extents = 0
        self._give_up_s: float | None = None
        self._sink: ExtentSink | None = None
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._stop_reader, self._stop_writer = socket.socketpair()

    # Sending

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        """As Channel.send_extent."""
        pieces = slices(extent)
        try:
            if not self._senders:
                self._start(self._senders, self._send)
            in_flight = _ExtentInFlight(extent, source, len(pieces), self._first.sends_files)
        except BaseException:
            source.release(extent)
            raise
        with self._condition:
            failure = self._failure
            if failure is None:
                self._queue.extend((piece, in_flight) for piece in pieces)
                self._condition.notify_all()
        if failure is not None or not pieces:
            in_flight.release()
        self._shrink_queue(_BACKLOG_SLICES * len(self._others))

    def flush(self) -> None:
        """As Channel.flush."""
        self._shrink_queue(0)
        check = self._first.wait_check
        with self._condition:
            while not self._condition.wait_for(lambda: not self._busy or self._failure is not None, check.interval_s):
                check.run(is_within_frame=False)
        self._raise_failure()

    def _shrink_queue(self, backlog: int) -> None:
        while len(self._queue) > backlog:
            if self._first.wait_for_room(self._wake_reader.fileno()):
                self._send_next(self._first)
            self._clear_wake()
            self._raise_failure()
        self._raise_failure()

    def _send(self, stream: TcpStream) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._queue or self._is_stopping)
                if self._is_stopping:
                    return
            self._send_next(stream)
            self._wake()

    def _send_next(self, stream: TcpStream) -> None:
        with self._condition:
            if not self._queue:
                return
            piece, in_flight = self._queue.popleft()
            self._busy += 1
        done = [in_flight]
        try:
            stream.send_slice(piece, in_flight.source, in_flight.descriptor)
        except Exception as error:
            with self._condition:
                self._failure = self._failure or error
                done += [waiting for _, waiting in self._queue]
                self._queue.clear()
        finally:
            with self._condition:
                for each in done:
                    each.slices_left -= 1
                released = [each for each in dict.fromkeys(done) if not each.slices_left]
            for each in released:
                each.release()
            with self._condition:
                self._busy -= 1  # after the release: `flush` promises that everything is released
                self._condition.notify_all()

    # Receiving

    def receive(self, sink: ExtentSink | None, timeout_s: float | None, wake: int | None = None) -> bytes | None:
        """As Channel.receive."""
        self._sink = sink
        if not self._receivers:
            self._receiving = len(self._others)
            self._start(self._receivers, self._receive)
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._clear_wake()
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            try:
                message = self._first.receive(sink, 0 if self._has_news else left_s, self._wake_reader.fileno(), wake)
            except PeerClosedError:
                # The peer closes the first connection with the session; the others may still hold content. A thread
                # counts its last content before it ends, so ask in that order.
                is_over = not self._receiving or self._first.is_given_up
                if not self._has_news and (is_over or not self._await_content(left_s)):
                    raise
                message = None
            extents_read, reported_extents = self._extents_read, self._reported_extents
            self._reported_extents = extents_read  # the caller of `receive` looks at all content so far
            if message is not None:
                return message
            self._raise_failure_once()
            if extents_read != reported_extents or left_s == 0 or (wake is not None and _is_readable(wake)):
                return None

    @property
    def _extents_read(self) -> int:
        return sum(stream.extents_read for stream in self._streams)

    @property
    def _has_news(self) -> bool:
        """Whether a thread has failed or received content, and the caller of `receive` does not know it yet."""
        return self._is_failing or self._extents_read != self._reported_extents

    @property
    def _is_failing(self) -> bool:
        return self._failure is not None and not self._has_raised

    def _await_content(self, timeout_s: float | None) -> bool:
        """Wait until a thread has received content or ended; False once the peer was silent for the idle timeout."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        now_s = time.monotonic()
        if self._give_up_s is None:
            self._give_up_s = now_s + self._first.idle_timeout_s
        left_s = self._give_up_s - now_s
        if poll.poll(ceil(max(0.0, left_s if timeout_s is None else min(timeout_s, left_s)) * 1e3)):
            self._give_up_s = None
            return True
        return time.monotonic() < self._give_up_s

    def _receive(self, stream: TcpStream) -> None:
        poll = select.poll()
        poll.register(stream.socket, select.POLLIN)
        poll.register(self._stop_reader, select.POLLIN)
        try:
            while (stream.has_plaintext or poll.poll()) and not self._is_stopping:
                if stream.receive(self._sink, 0) is not None:
                    raise ProtocolError("the peer sent a message on a connection that carries content only")
                self._wake()
        except Exception as error:
            is_end = isinstance(error, PeerClosedError) and stream.is_between_frames
            with self._condition:
                if not is_end and not self._is_stopping:
                    self._failure = self._failure or error
        finally:
            with self._condition:
                self._receiving -= 1
            self._wake()

    # Failures and closing

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._has_raised = True
            raise self._failure

    def _raise_failure_once(self) -> None:
        """Raise only once, so that the messages before the failure can still be read."""
        if self._is_failing:
            self._raise_failure()

    def _start(self, threads: list[threading.Thread], work: Callable[[TcpStream], None]) -> None:
        """Start one thread for each connection beyond the first. Raises TransferError if the system allows no more."""
        for stream in self._others:
            thread = threading.Thread(target=work, args=(stream,), name="tcp stream", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise TransferError("this system allows no more threads; choose fewer with `streams`") from error
            threads.append(thread)

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            self._wake_writer.send(b"\0")

    def _clear_wake(self) -> None:
        with suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                self._first.reset_silence()

    def drain(self, linger_s: float, end_s: float) -> bool:
        """Wait until everything is sent, unless nothing is sent for `linger_s`; return whether everything was.

        At most until `end_s` on the monotonic clock.
        """
        with self._condition:
            while self._failure is None and (waiting := len(self._queue) + self._busy):
                self._condition.wait(max(0.0, min(linger_s, end_s - time.monotonic())))
                if len(self._queue) + self._busy == waiting or time.monotonic() >= end_s:
                    break
            return self._failure is None and not self._queue and not self._busy

    def stop(self, is_orderly: bool) -> None:
        """End the threads, and free everything but the streams. Unless `is_orderly`, interrupts threads that send.

        May be called again, for example after an interrupt.
        """
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        self._stop_writer.close()
        if not is_orderly:
            for stream in self._others:
                with suppress(OSError):
                    stream.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._senders + self._receivers:
            thread.join()
        for _, in_flight in self._queue:
            in_flight.release()
        for sock in (self._wake_reader, self._wake_writer, self._stop_reader):
            sock.close()


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
