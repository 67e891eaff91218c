"""Sends and receives frames over one TCP connection: messages, and extents from files and into a sink.

The socket is non-blocking; a call that has to wait polls. A sender that waits for room also reads messages, so that
two peers that both send cannot block each other. Content is sent in slices with a header each: if a file ends too
early, zeros fill the rest of the slice, and the connection can still carry the reason to the peer. Plain content is
sent with `sendfile`; on an encrypted connection, the source fills a record, which is sealed and sent (`records`).
Small pieces are gathered: they leave with the next message, or when the channel's owner waits for something.
`frame_reader` does the receiving.

Silence is the time that this side has waited, over all calls, since the peer last sent or acknowledged something. Time
between calls does not count, because no thread reads then. UDP counts from the last packet that arrived. Elsewhere,
`pool.py` applies the idle timeout while the channel waits for content on further connections. The kernel applies it
before a session and after it only (TCP_USER_TIMEOUT): to the kernel, a peer that waits for a file, and takes nothing
meanwhile, is as good as lost, although it answers each probe and sends signs of life.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final

from toolkit.channel import MAX_IDLE_TIMEOUT_S, Address, Extent, ExtentSink, ExtentSource
from toolkit.errors import ProtocolError, TransferError
from toolkit.transports.keep_alive import FileWait
from toolkit.transports.tcp.frame_reader import FrameReader
from toolkit.transports.tcp.lost_connection import PEER_ERRORS, LostConnection
from toolkit.transports.tcp.records import MAX_RECORD_BYTES, RecordKeys, RecordOpener, RecordSealer
from toolkit.transports.tcp.settings import set_user_timeout
from toolkit.transports.tcp.tcp_info import unacknowledged_bytes
from toolkit.transports.tcp.wait_check import WaitCheck
from toolkit.transports.tcp.wire import FRAME_BYTES, MAX_EXTENT_BYTES, encode_extent_header, encode_message_header

SLICE_BYTES: Final = MAX_EXTENT_BYTES

SMALL_BYTES: Final = 1 << 16
"""Up to this size, content is read and sent with its header in one system call, where `sendfile` needs three."""

_HELD_BYTES: Final = SMALL_BYTES
"""How much of small pieces of content is gathered before it is sent: one record and one system call for many files.
`_outgoing_block` has room for it and one header."""

_MAX_HELD_PIECE_BYTES: Final = 1 << 14
"""Larger pieces are not worth the wait."""

_MAX_QUEUED_BYTES: Final = 1 << 24
"""Most bytes of messages to read while sending; beyond it, the peer has to wait until `receive` takes them."""

_RECORD_CONTENT_BYTES: Final = 1 << 18
"""The most content that one record holds. Records of 64 and 128 KiB cost more calls, and 512 KiB do not stay cached."""

_MSG_MORE: Final = getattr(socket, "MSG_MORE", 0)


class TcpStream:
    """One connection after its preface. At most one thread sends on it at a time, and at most one receives.

    keys:                seal and open what the connection carries; None for plain frames
    reads_while_sending: whether a sender that waits for room reads messages; no if another thread receives
    may_splice:          whether the receiving thread is the one that the sink belongs to
    is_given_up:         whether the peer was silent for the idle timeout
    file_wait:           when a file is used
    wait_check:          ends a wait for room
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: Address,
        idle_timeout_s: float,
        keys: RecordKeys | None = None,
        *,
        reads_while_sending: bool = True,
        may_splice: bool = True,
    ) -> None:
        sock.setblocking(False)
        set_user_timeout(sock, MAX_IDLE_TIMEOUT_S)
        self.socket = sock
        self.is_given_up = False
        self._reads_while_sending = reads_while_sending
        self.idle_timeout_s = idle_timeout_s
        self._silence_s = 0.0
        self._sealer = None if keys is None else RecordSealer(keys.outgoing)
        opener = None if keys is None else RecordOpener(sock.recv_into, keys.incoming)
        self.file_wait = FileWait()
        self.wait_check = WaitCheck()
        self._lost = LostConnection(sock, peer)
        self._reader = FrameReader(sock, self._lost.error, may_splice, opener, self.file_wait)
        self._is_send_broken = False  # a frame was sent in part: the peer cannot parse anything that follows
        self._outgoing_block = memoryview(b"")
        self._content_bytes = 0  # handed to the kernel, of extents
        self._held_bytes = 0  # of frames at the start of the next record, or of `_outgoing_block`
        self._held_content_bytes = 0

    # Sending

    @property
    def acknowledged_bytes(self) -> int:
        """How much content the peer's kernel has acknowledged; messages that wait behind it count against it."""
        content_bytes = self._content_bytes
        try:
            return max(0, content_bytes - unacknowledged_bytes(self.socket))
        except (OSError, ValueError):  # a system that does not tell, or closed
            return content_bytes

    @property
    def sends_files(self) -> bool:
        """Whether `send_slice` sends from a descriptor."""
        return self._sealer is None

    def send_message(self, message: bytes) -> None:
        """Hand a message to the kernel, and what was held before it. Raises PeerClosedError."""
        frame = memoryview(encode_message_header(len(message)) + message)
        if self._sealer is None:
            self.flush()
            self._send_all(frame)
            return
        while frame:
            start = self._held_bytes
            piece = frame[: MAX_RECORD_BYTES - start]
            self._held_bytes += len(piece)
            self._sealer.plaintext[start : self._held_bytes] = piece
            self.flush()
            frame = frame[len(piece) :]

    def flush(self) -> None:
        """Hand to the kernel what is held. Raises PeerClosedError."""
        if not self._held_bytes:
            return
        length, content_bytes = self._held_bytes, self._held_content_bytes
        self._held_bytes = self._held_content_bytes = 0
        self._send_all(self._outgoing_block[:length] if self._sealer is None else self._sealer.seal(length))
        self._content_bytes += content_bytes

    def send_slice(
        self, piece: Extent, source: ExtentSource, descriptor: int | None = None, *, may_hold: bool = False
    ) -> None:
        """Hand at most SLICE_BYTES of content to the kernel. Raises PeerClosedError, and what the source raises.

        descriptor: the file to send from; None for the source's own
        may_hold:   whether a small piece may wait for more, for a message, or for `flush`
        """
        if self._sealer is None and not self._outgoing_block:
            self._outgoing_block = memoryview(bytearray(FRAME_BYTES + SMALL_BYTES))
        if may_hold and piece.length <= _MAX_HELD_PIECE_BYTES:
            self._hold(piece, source)
            return
        self.flush()
        if self._sealer is not None:
            self._send_sealed_slice(piece, source, self._sealer)
            return
        if piece.length <= SMALL_BYTES:
            self._hold(piece, source)
            self.flush()
            return
        header = encode_extent_header(piece)
        if descriptor is None:
            descriptor = source.fileno()
        self._send_all(memoryview(header), _MSG_MORE)
        sent = 0
        try:
            if descriptor is not None:
                sent = self._send_file(descriptor, piece.offset, piece.length)
            if sent:
                source.on_sendfile(piece.offset, sent)
            # No file, or it has ended, or `sendfile` cannot read it: the source reads it, or raises the error.
            while sent < piece.length:
                block = self._outgoing_block[: min(SMALL_BYTES, piece.length - sent)]
                source.read_into(piece.offset + sent, block)
                self._send_all(block)
                self._content_bytes += len(block)
                sent += len(block)
        except Exception:
            if not self._is_send_broken:
                self._send_all(memoryview(bytes(piece.length - sent)))
            raise

    def _hold(self, piece: Extent, source: ExtentSource) -> None:
        """Put a small piece with its header behind what is held. Raises as `send_slice`."""
        if self._held_bytes + piece.length > _HELD_BYTES:
            self.flush()
        block = self._outgoing_block if self._sealer is None else self._sealer.plaintext
        start = self._held_bytes
        end = start + FRAME_BYTES + piece.length
        with self.file_wait:
            source.read_into(piece.offset, block[start + FRAME_BYTES : end])
        block[start : start + FRAME_BYTES] = encode_extent_header(piece)
        self._held_bytes = end
        self._held_content_bytes += piece.length

    def _send_sealed_slice(self, piece: Extent, source: ExtentSource, sealer: RecordSealer) -> None:
        filled = FRAME_BYTES
        sealer.plaintext[:FRAME_BYTES] = encode_extent_header(piece)
        sent = 0
        failure: Exception | None = None
        while sent < piece.length:
            content = sealer.plaintext[filled : filled + min(_RECORD_CONTENT_BYTES, piece.length - sent)]
            if failure is None:
                try:
                    with self.file_wait:
                        source.read_into(piece.offset + sent, content)
                except Exception as error:
                    if not sent:
                        raise
                    failure = error
            if failure is not None:
                content[:] = bytes(len(content))
            self._send_all(sealer.seal(filled + len(content)))
            self._content_bytes += len(content)
            sent += len(content)
            filled = 0
        if failure is not None:
            raise failure

    def wait_for_room(self, wake: int | None = None, *, is_within_frame: bool = False) -> bool:
        """Wait until the socket is writable, and read messages meanwhile; then return True.

        False if there is a `wake`, and it is readable first or the channel's check has run. Raises PeerClosedError, and
        what the check raises.
        """
        while True:
            reads = (
                self._reads_while_sending
                and self._reader.failure is None
                and self._reader.extent is None
                and self._reader.queued_bytes < _MAX_QUEUED_BYTES
            )
            events = select.POLLOUT | (select.POLLIN if reads else 0)
            ready = self._wait(events, self.wait_check.interval_s, (wake,))
            if reads and ready & select.POLLIN:
                self._read_messages()
            if ready & ~select.POLLIN:
                return True
            self.wait_check.run(is_within_frame)
            if not ready and wake is not None:
                return False

    def _read_messages(self) -> None:
        # `receive` reports a failure: the peer may have shut down only its sending half.
        reader = self._reader
        with contextlib.suppress(TransferError):
            while reader.queued_bytes < _MAX_QUEUED_BYTES and reader.read_frame() and reader.extent is None:
                pass

    def _send_file(self, descriptor: int, offset: int, length: int) -> int:
        """Send from a file; returns how many bytes, fewer than `length` if `sendfile` stops there."""
        sent = 0
        with self._sending():
            while sent < length:
                try:
                    count = os.sendfile(self.socket.fileno(), descriptor, offset + sent, length - sent)
                except BlockingIOError:
                    self.wait_for_room(is_within_frame=True)
                    continue
                except OSError as error:
                    if error.errno in PEER_ERRORS:
                        raise
                    break
                if not count:
                    break
                self._content_bytes += count
                sent += count
        return sent

    def _send_all(self, data: memoryview, flags: int = 0) -> None:
        with self._sending():
            while data:
                try:
                    data = data[self.socket.send(data, flags) :]
                except BlockingIOError:
                    self.wait_for_room(is_within_frame=True)

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        if self._is_send_broken:
            raise self._lost.error(None)
        try:
            yield
        except OSError as error:
            self._is_send_broken = True
            raise self._lost.error(error) from error
        except BaseException:
            self._is_send_broken = True
            raise

    def send_keep_alive(self) -> None:
        """Show that this side is there. Another thread calls this, while this connection's waits for a file.

        In plaintext, nothing can be sent within a frame.
        """
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT)
        if self._sealer is None or self._is_send_broken or poll.poll(0) != [(self.socket.fileno(), select.POLLOUT)]:
            return  # the connection's thread reports what has happened to it
        record = self._sealer.keep_alive()
        try:
            self._is_send_broken = self.socket.send(record) < len(record)  # never: there is room for far more
        except OSError:
            self._is_send_broken = True

    # Receiving

    @property
    def is_between_frames(self) -> bool:
        """Whether no frame has been read in part."""
        return self._reader.is_between_frames

    @property
    def has_plaintext(self) -> bool:
        """Whether `receive` finds more although the socket may have nothing to read."""
        return self._reader.has_plaintext

    @property
    def unopened_bytes(self) -> int:
        """See FrameReader."""
        return self._reader.unopened_bytes

    @property
    def extents_read(self) -> int:
        """How many frames of content were received completely."""
        return self._reader.extents_read

    def receive(self, sink: ExtentSink | None, timeout_s: float | None, *wakes: int | None) -> bytes | None:
        """As Channel.receive; each of `wakes` that is not None ends the wait when it is readable."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        reader = self._reader
        has_received = False
        while not reader.messages:
            if reader.extent is not None or reader.read_frame():
                if reader.extent is None:
                    break
                if sink is None:
                    raise ProtocolError("the peer sent content, and none is expected")
                if reader.read_content(sink):
                    has_received = True
                    if reader.has_plaintext:  # the rest of a record, which may hold many small extents
                        continue
            if has_received:
                return None
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if left_s == 0 or not self._wait(select.POLLIN, left_s, wakes):
                return None
        return reader.next_message()

    # Waiting

    def reset_silence(self) -> None:
        """The peer was heard on another connection."""
        self._silence_s = 0.0

    def _wait(self, events: int, timeout_s: float | None, wakes: Sequence[int | None]) -> int:
        """Return the events that the socket is ready for: 0 at the timeout, or if only `wakes` are readable.

        Raises PeerClosedError once the peer has been silent for the idle timeout.
        """
        poll = select.poll()
        poll.register(self.socket, events)
        for wake in wakes:
            if wake is not None:
                poll.register(wake, select.POLLIN)
        if self._reader.take_sign_of_life():
            self._silence_s = 0.0
        left_s = max(0.0, self.idle_timeout_s - self._silence_s)
        is_last_wait = timeout_s is None or timeout_s >= left_s
        started_s = time.monotonic()
        ready = dict(poll.poll(ceil((left_s if is_last_wait else timeout_s or 0.0) * 1e3)))
        if found := ready.get(self.socket.fileno(), 0):
            self._silence_s = 0.0
            # After an error or a hang-up, the next send or receive reports what has happened.
            return found | events if found & (select.POLLERR | select.POLLHUP) else found
        if is_last_wait and not ready:
            self._is_send_broken = self.is_given_up = True
            self._reader.failure = self._lost.silence_error(self.idle_timeout_s)
            raise self._reader.failure
        self._silence_s += time.monotonic() - started_s
        return 0

    # Closing

    def shut_down(self) -> None:
        """Tell the peer that nothing more follows. Never fails."""
        with contextlib.suppress(OSError):
            set_user_timeout(self.socket, self.idle_timeout_s)  # for what the kernel still has to send
            self.socket.shutdown(socket.SHUT_WR)

    def free(self) -> None:
        """Close the socket and free everything else."""
        self._reader.close()
        self.socket.close()
