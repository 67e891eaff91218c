"""Frames over one TCP connection: messages and extents out of files and into a sink.

The socket does not block; whoever has to wait polls. While a sender waits for room it also takes in messages, so
that two ends which both send cannot block each other. Content goes out by `sendfile`, in slices that are announced
one by one: where a file ends too early, the rest of the slice is filled with zeros, and the connection still serves to
tell the peer why. Content comes in through a buffer that fits the second-level cache, so that the sink writes and
hashes what is still there, or by `splice` where the sink lets it (see `toolkit.net.splice`).

Silence: the time that this end waited, over all calls, since the peer last sent or took something.
"""

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import sys
import termios
import time
from collections import deque
from collections.abc import Iterator
from math import ceil
from typing import Final

from toolkit.errors import PeerClosedError, ProtocolError, TransferError
from toolkit.net.tcp_info import tcp_info
from toolkit.transfer.channel import Address, Extent, ExtentSink, ExtentSource
from toolkit.transports.tcp_wire import (
    FRAME_BYTES,
    decode_frame_untrusted,
    encode_extent_header,
    encode_message_header,
)

SLICE_BYTES: Final = 1 << 20
"""What one frame of content holds at most: little enough to be filled with zeros, much enough to cost nothing."""

_LANDING_BLOCK_BYTES: Final = 1 << 19
_SMALL_BYTES: Final = 1 << 16
"""Up to here content is read and sent together with its header: one system call, where `sendfile` needs three."""

_MAX_WAITING_MESSAGES: Final = 64
_QUIET_S: Final = 0.02
_PEER_ERRORS: Final = frozenset(
    (
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.ENOTCONN,
    )
)
_MSG_MORE: Final = getattr(socket, "MSG_MORE", 0)


class TcpStream:
    """One connection after its preface. One thread at a time sends on it, and one receives.

    takes_messages_in: a sender that waits for room receives meanwhile; not where another thread receives
    """

    def __init__(
        self, sock: socket.socket, peer: Address, idle_timeout_s: float, takes_messages_in: bool = True
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.landed_slices = 0
        self.is_given_up = False
        self._takes_messages_in = takes_messages_in
        self._peer = peer
        self.idle_timeout_s = idle_timeout_s
        self._silence_s = 0.0
        self._is_torn = False  # the peer cannot make sense of anything after what was sent
        self._receive_failure: TransferError | None = None
        # What comes in: a header, then a message or the rest of an extent.
        self._header = memoryview(bytearray(FRAME_BYTES))
        self._message: memoryview | None = None
        self._extent: Extent | None = None
        self._filled_bytes = 0
        self._messages: deque[bytes] = deque()
        self._landing_block = memoryview(b"")
        self._outgoing_block = memoryview(b"")

    # Sending

    def send_message(self, message: bytes) -> None:
        """Hand a message over to the kernel. Raises PeerClosedError."""
        self._send_all(memoryview(encode_message_header(len(message)) + message))

    def send_slice(self, piece: Extent, source: ExtentSource) -> None:
        """Hand over content, at most SLICE_BYTES. Raises PeerClosedError, and what the source raises."""
        if not self._outgoing_block:
            self._outgoing_block = memoryview(bytearray(FRAME_BYTES + _SMALL_BYTES))
        header = encode_extent_header(piece)
        if piece.length <= _SMALL_BYTES:
            frame = self._outgoing_block[: FRAME_BYTES + piece.length]
            source.read_into(piece.offset, frame[FRAME_BYTES:])
            frame[:FRAME_BYTES] = header
            self._send_all(frame)
            return
        descriptor = source.fileno()
        self._send_all(memoryview(header), _MSG_MORE)
        sent = 0
        try:
            sent = self._send_file(descriptor, piece.offset, piece.length)
            if sent:
                source.moved(piece.offset, sent)
            # The file has ended, or cannot be sent like this: the source knows which, and raises if it must.
            while sent < piece.length:
                block = self._outgoing_block[: min(_SMALL_BYTES, piece.length - sent)]
                source.read_into(piece.offset + sent, block)
                self._send_all(block)
                sent += len(block)
        except Exception:
            if not self._is_torn:
                self._send_all(memoryview(bytes(piece.length - sent)))
            raise

    def wait_for_room(self, wake: int | None = None) -> bool:
        """Wait until something can be sent, and take in messages meanwhile; False when `wake` is readable before."""
        while True:
            takes_in = (
                self._takes_messages_in
                and self._receive_failure is None
                and self._extent is None
                and len(self._messages) < _MAX_WAITING_MESSAGES
            )
            ready = self._wait(select.POLLOUT | (select.POLLIN if takes_in else 0), None, wake)
            if takes_in and ready & select.POLLIN:
                self._take_messages_in()
            if ready & ~select.POLLIN:
                return True
            if not ready:
                return False

    def _take_messages_in(self) -> None:
        # A failure is kept for `receive`: the peer may have shut down its sending half only.
        with contextlib.suppress(TransferError):
            while len(self._messages) < _MAX_WAITING_MESSAGES and self._receive_frame() and self._extent is None:
                pass

    def _send_file(self, descriptor: int, offset: int, length: int) -> int:
        """Send out of a file; returns how much, less than `length` where `sendfile` goes no further."""
        sent = 0
        with self._sending():
            while sent < length:
                try:
                    count = os.sendfile(self.socket.fileno(), descriptor, offset + sent, length - sent)
                except BlockingIOError:
                    self.wait_for_room()
                    continue
                except OSError as error:
                    if error.errno in _PEER_ERRORS:
                        raise
                    break
                if not count:
                    break
                sent += count
        return sent

    def _send_all(self, data: memoryview, flags: int = 0) -> None:
        with self._sending():
            while data:
                try:
                    data = data[self.socket.send(data, flags) :]
                except BlockingIOError:
                    self.wait_for_room()

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        if self._is_torn:
            raise self._lost(None)
        try:
            yield
        except OSError as error:
            self._is_torn = True
            raise self._lost(error) from error
        except BaseException:
            self._is_torn = True
            raise

    # Receiving

    @property
    def is_between_frames(self) -> bool:
        """Nothing has come in halfway."""
        return self._message is None and self._extent is None and not self._filled_bytes

    def receive(self, sink: ExtentSink | None, timeout_s: float | None, wake: int | None = None) -> bytes | None:
        """As Channel.receive; also None as soon as the descriptor `wake` is readable."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._messages:
            if self._receive_failure is not None:
                raise self._receive_failure
            if self._extent is not None or self._receive_frame():
                if self._extent is None:
                    break
                if sink is None:
                    raise ProtocolError("the peer sends content that nobody asked for")
                if self._land(sink):
                    return None
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if left_s == 0 or not self._wait(select.POLLIN, left_s, wake):
                return None
        return self._messages.popleft()

    def _receive_frame(self) -> bool:
        """Take in a whole message or the header of an extent; False when there is no more to read for now."""
        if self._message is None:
            if not self._fill(self._header):
                return False
            try:
                frame = decode_frame_untrusted(self._header)
            except ProtocolError as error:
                self._receive_failure = error
                raise
            if isinstance(frame, Extent):
                self._extent = frame
                return True
            self._message = memoryview(bytearray(frame.length))
        if not self._fill(self._message):
            return False
        self._messages.append(self._message.tobytes())
        self._message = None
        return True

    def _land(self, sink: ExtentSink) -> bool:
        """Land what there is of the current extent; whether that was all of it."""
        if not self._landing_block:
            self._landing_block = memoryview(bytearray(_LANDING_BLOCK_BYTES))
        while self._extent is not None:
            file_id, offset, length = self._extent
            block = self._landing_block[:length]
            if not self._fill(block):
                return False
            rest = length - len(block)
            self._extent = Extent(file_id, offset + len(block), rest) if rest else None
            if block:
                sink.write(file_id, offset, block)
        self.landed_slices += 1
        return True

    def _fill(self, target: memoryview) -> bool:
        """Receive until `target` is full, in as many calls as that takes; False when there is no more for now."""
        while self._filled_bytes < len(target):
            try:
                count = self.socket.recv_into(target[self._filled_bytes :])
            except BlockingIOError:
                return False
            except OSError as error:
                self._receive_failure = self._lost(error)
                raise self._receive_failure from error
            if not count:
                self._receive_failure = self._lost(None)
                raise self._receive_failure
            self._silence_s = 0.0
            self._filled_bytes += count
        self._filled_bytes = 0
        return True

    # Waiting

    def _wait(self, events: int, timeout_s: float | None, wake: int | None) -> int:
        """What the socket is ready for; 0 at the timeout, or when only `wake` is readable. Raises PeerClosedError."""
        poll = select.poll()
        poll.register(self.socket, events)
        if wake is not None:
            poll.register(wake, select.POLLIN)
        patience_s = max(0.0, self.idle_timeout_s - self._silence_s)
        is_last_wait = timeout_s is None or timeout_s >= patience_s
        started_s = time.monotonic()
        ready = dict(poll.poll(ceil((patience_s if is_last_wait else timeout_s or 0.0) * 1e3)))
        if ready:
            self._silence_s = 0.0
            found = ready.get(self.socket.fileno(), 0)
            # After an error or a hang-up, the call that was to follow finds out what has happened.
            return found | events if found & (select.POLLERR | select.POLLHUP) else found
        if is_last_wait:
            self._is_torn = self.is_given_up = True
            self._receive_failure = PeerClosedError(
                f"{self._peer} has been silent for {self.idle_timeout_s:g} s and is given up; is the path still up?"
            )
            raise self._receive_failure
        self._silence_s += time.monotonic() - started_s
        return 0

    def _lost(self, error: OSError | None) -> PeerClosedError:
        if error is None:
            return PeerClosedError(f"{self._peer} closed the connection before the end")
        return PeerClosedError(f"the connection to {self._peer} was lost: {(error.strerror or str(error)).lower()}")

    # The end

    def shut_down(self) -> None:
        """Tell the peer that nothing more comes. Never fails."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def linger(self, patience_s: float) -> None:
        """After `shut_down`: wait until the peer's kernel has everything, and throw away what comes in.

        A socket that is closed with bytes unread, or that bytes still come to, resets the connection, and with it
        what the peer has not got yet. Ends when the peer has closed too, when everything is acknowledged and the
        peer has gone quiet, or `patience_s` after the peer last acknowledged something.
        """
        trash = bytearray(_LANDING_BLOCK_BYTES)
        quiet_s = max(_QUIET_S, 2e-6 * tcp_info(self.socket).get("rtt", 0))
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        fewest_bytes = sys.maxsize
        deadline_s = time.monotonic() + patience_s
        with contextlib.suppress(OSError):
            while (now_s := time.monotonic()) < deadline_s:
                if poll.poll(ceil(min(quiet_s, deadline_s - now_s) * 1e3)):
                    try:
                        if not self.socket.recv_into(trash):
                            return
                    except BlockingIOError:
                        continue
                else:
                    count = self._unacknowledged_bytes()
                    if not count:
                        return
                    if count < fewest_bytes:
                        fewest_bytes, deadline_s = count, now_s + patience_s

    def _unacknowledged_bytes(self) -> int:
        count: int = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))[0]
        return count
