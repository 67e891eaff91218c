"""Frames over one TCP connection: messages and extents out of files and into a sink.

The socket does not block; whoever has to wait polls. While a sender waits for room it also takes in messages, so
that two ends which both send cannot block each other. Content goes out by `sendfile`, in slices that are announced
one by one: where a file ends too early, the rest of the slice is filled with zeros, and the connection still serves to
tell the peer why. What comes in is `tcp_inbound`'s.

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
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final

from toolkit.channel import Address, Extent, ExtentSink, ExtentSource
from toolkit.errors import PeerClosedError, ProtocolError, TransferError
from toolkit.transports.tcp.frame_reader import BLOCK_BYTES, Inbound, lost
from toolkit.transports.tcp.tcp_info import tcp_info
from toolkit.transports.tcp.wire import FRAME_BYTES, encode_extent_header, encode_message_header

SLICE_BYTES: Final = 1 << 20
"""What one frame of content holds at most: little enough to be filled with zeros, much enough to cost nothing."""

SMALL_BYTES: Final = 1 << 16
"""Up to here content is read and sent together with its header: one system call, where `sendfile` needs three."""

_MAX_WAITING_BYTES: Final = 1 << 24
"""Of messages that came in while this end was sending: beyond it, the peer has to wait until they are looked at."""

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
    may_splice:        all that is received is landed by the thread that the sink belongs to
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: Address,
        idle_timeout_s: float,
        *,
        takes_messages_in: bool = True,
        may_splice: bool = True,
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.is_given_up = False
        self._takes_messages_in = takes_messages_in
        self._peer = peer
        self.idle_timeout_s = idle_timeout_s
        self._silence_s = 0.0
        self._inbound = Inbound(sock, peer, may_splice)
        self._is_torn = False  # the peer cannot make sense of anything after what was sent
        self._outgoing_block = memoryview(b"")

    # Sending

    def send_message(self, message: bytes) -> None:
        """Hand a message over to the kernel. Raises PeerClosedError."""
        self._send_all(memoryview(encode_message_header(len(message)) + message))

    def send_slice(self, piece: Extent, source: ExtentSource, descriptor: int | None = None) -> None:
        """Hand over content, at most SLICE_BYTES. Raises PeerClosedError, and what the source raises.

        descriptor: what to send out of; the source's own where None
        """
        if not self._outgoing_block:
            self._outgoing_block = memoryview(bytearray(FRAME_BYTES + SMALL_BYTES))
        header = encode_extent_header(piece)
        if piece.length <= SMALL_BYTES:
            frame = self._outgoing_block[: FRAME_BYTES + piece.length]
            source.read_into(piece.offset, frame[FRAME_BYTES:])
            frame[:FRAME_BYTES] = header
            self._send_all(frame)
            return
        if descriptor is None:
            descriptor = source.fileno()
        self._send_all(memoryview(header), _MSG_MORE)
        sent = 0
        try:
            if descriptor is not None:
                sent = self._send_file(descriptor, piece.offset, piece.length)
            if sent:
                source.moved(piece.offset, sent)
            # There is no file, or it has ended, or cannot be sent like this: the source knows, and raises if it must.
            while sent < piece.length:
                block = self._outgoing_block[: min(SMALL_BYTES, piece.length - sent)]
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
                and self._inbound.failure is None
                and self._inbound.extent is None
                and self._inbound.waiting_bytes < _MAX_WAITING_BYTES
            )
            ready = self._wait(select.POLLOUT | (select.POLLIN if takes_in else 0), None, (wake,))
            if takes_in and ready & select.POLLIN:
                self._take_messages_in()
            if ready & ~select.POLLIN:
                return True
            if not ready:
                return False

    def _take_messages_in(self) -> None:
        # A failure is kept for `receive`: the peer may have shut down its sending half only.
        inbound = self._inbound
        with contextlib.suppress(TransferError):
            while inbound.waiting_bytes < _MAX_WAITING_BYTES and inbound.take_frame() and inbound.extent is None:
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
            raise lost(self._peer, None)
        try:
            yield
        except OSError as error:
            self._is_torn = True
            raise lost(self._peer, error) from error
        except BaseException:
            self._is_torn = True
            raise

    # Receiving

    @property
    def is_between_frames(self) -> bool:
        """Nothing has come in halfway."""
        return self._inbound.is_between_frames

    @property
    def landed_slices(self) -> int:
        """How many frames of content have landed."""
        return self._inbound.landed_slices

    def receive(self, sink: ExtentSink | None, timeout_s: float | None, *wakes: int | None) -> bytes | None:
        """As Channel.receive, with any number of descriptors to be woken by."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        inbound = self._inbound
        while not inbound.messages:
            if inbound.extent is not None or inbound.take_frame():
                if inbound.extent is None:
                    break
                if sink is None:
                    raise ProtocolError("the peer sends content that nobody asked for")
                if inbound.land(sink):
                    return None
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if left_s == 0 or not self._wait(select.POLLIN, left_s, wakes):
                return None
        return inbound.next_message()

    # Waiting

    def hear(self) -> None:
        """The peer has given a sign of itself on another connection."""
        self._silence_s = 0.0

    def _wait(self, events: int, timeout_s: float | None, wakes: Sequence[int | None]) -> int:
        """What the socket is ready for; 0 at the timeout, or when only `wakes` are readable. Raises PeerClosedError."""
        poll = select.poll()
        poll.register(self.socket, events)
        for wake in wakes:
            if wake is not None:
                poll.register(wake, select.POLLIN)
        if self._inbound.is_heard:
            self._inbound.is_heard = False
            self._silence_s = 0.0
        patience_s = max(0.0, self.idle_timeout_s - self._silence_s)
        is_last_wait = timeout_s is None or timeout_s >= patience_s
        started_s = time.monotonic()
        ready = dict(poll.poll(ceil((patience_s if is_last_wait else timeout_s or 0.0) * 1e3)))
        if found := ready.get(self.socket.fileno(), 0):
            self._silence_s = 0.0
            # After an error or a hang-up, the call that was to follow finds out what has happened.
            return found | events if found & (select.POLLERR | select.POLLHUP) else found
        if is_last_wait and not ready:
            self._is_torn = self.is_given_up = True
            failure = self._inbound.failure = PeerClosedError(
                f"{self._peer} has been silent for {self.idle_timeout_s:g} s and is given up; is the path still up?"
            )
            raise failure
        self._silence_s += time.monotonic() - started_s
        return 0

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
        trash = bytearray(BLOCK_BYTES)
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

    def free(self) -> None:
        """Close the socket, and give back everything else."""
        self._inbound.close()
        self.socket.close()

    def _unacknowledged_bytes(self) -> int:
        count: int = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)))[0]
        return count
