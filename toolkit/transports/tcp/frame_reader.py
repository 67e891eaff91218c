"""Reads frames from one non-blocking TCP socket: messages into a queue, content into a sink.

Content takes one of three ways. On an encrypted connection, the sink gets it from the record that was just opened.
Otherwise, if the sink offers the descriptors of its files, `splice` moves it: the kernel then copies each byte once,
from page to page. If it offers none, content passes through a block that fits the second-level cache, so that the sink
writes and hashes bytes that are still there.
"""

import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from toolkit.channel import DescriptorSink, Extent, ExtentSink
from toolkit.errors import PeerClosedError, ProtocolError, TransferError, closed_by_peer
from toolkit.transports.keep_alive import FileWait
from toolkit.transports.tcp import splice
from toolkit.transports.tcp.records import RecordOpener
from toolkit.transports.tcp.wire import FRAME_BYTES, CloseHeader, decode_frame_untrusted

BLOCK_BYTES: Final = 1 << 19
_MIN_SPLICE_BYTES: Final = 1 << 17
"""Shorter extents are faster with one read and one write than with two splices and a read for the digest."""


class FrameReader:
    """Reads what has arrived, and never waits.

    lost_error:     makes the error for a connection that was lost, or that the peer has closed (None)
    opener:         opens the records of the socket; None if it carries plain frames
    file_wait:      when a sink writes what a record held
    messages:       complete messages, to be taken with `next_message`
    queued_bytes:   the size of `messages`
    extent:         the rest of the extent whose content is being received, None between extents
    failure:        the reason why nothing more can be read
    extents_read:   how many extents were received completely
    """

    def __init__(
        self,
        sock: socket.socket,
        lost_error: Callable[[OSError | None], PeerClosedError],
        may_splice: bool,
        opener: RecordOpener | None = None,
        file_wait: FileWait | None = None,
    ) -> None:
        self.messages: deque[bytes] = deque()
        self.queued_bytes = 0
        self.extent: Extent | None = None
        self.failure: TransferError | None = None
        self.extents_read = 0
        self._has_read, self._keep_alives = False, 0  # since, and at, the last `take_sign_of_life`
        self._socket = sock
        self._lost_error = lost_error
        self._opener = opener
        self._file_wait = file_wait or FileWait()
        self._receive_into = sock.recv_into if opener is None else opener.receive_into_untrusted
        self._can_splice = may_splice and splice.is_available and opener is None
        self._header = memoryview(bytearray(FRAME_BYTES))
        self._message: memoryview | None = None  # or the reason of a CLOSE
        self._close: CloseHeader | None = None  # once one has begun to arrive
        self._filled_bytes = 0  # of the header, the message or the block
        self._block = memoryview(b"")
        self._pipe: splice.SplicePipe | None = None
        self._must_write = False  # the current extent is not spliced
        self._sink: ExtentSink | None = None
        self._splicing_sink: DescriptorSink | None = None

    @property
    def is_between_frames(self) -> bool:
        """Whether no frame has been read in part."""
        is_inside_record = self._opener is not None and not self._opener.is_between_records
        return self._message is None and self.extent is None and not self._filled_bytes and not is_inside_record

    @property
    def has_plaintext(self) -> bool:
        """Whether there is more to read although the socket may have nothing: the rest of an opened record."""
        return self._opener is not None and self._opener.has_plaintext

    @property
    def unopened_bytes(self) -> int:
        """How much of an incomplete record has arrived."""
        return 0 if self._opener is None else self._opener.unopened_bytes

    def read_frame(self) -> bool:
        """Read a whole message or the header of an extent; False if neither has arrived.

        Raises PeerClosedError or ProtocolError, and the same error again on every later call.
        """
        if self.failure is not None:
            raise self.failure
        if self._message is None:
            if not self._fill(self._header):
                return False
            try:
                frame = decode_frame_untrusted(self._header)
            except ProtocolError as error:
                self.failure = error
                raise
            if isinstance(frame, Extent):
                self.extent = frame
                self._must_write = frame.length < _MIN_SPLICE_BYTES
                return True
            self._close = frame if isinstance(frame, CloseHeader) else None
            self._message = memoryview(bytearray(frame.length))
        if not self._fill(self._message):
            return False
        if self._close is not None:
            self.failure = closed_by_peer(self._close.code, self._message.tobytes().decode("utf-8", "replace"))
            raise self.failure
        self.messages.append(self._message.tobytes())
        self.queued_bytes += FRAME_BYTES + len(self._message)
        self._message = None
        return True

    def take_sign_of_life(self) -> bool:
        """Whether anything was read since the last call, keep-alives included."""
        keep_alives = 0 if self._opener is None else self._opener.keep_alives
        has_read = self._has_read or keep_alives > self._keep_alives
        self._has_read, self._keep_alives = False, keep_alives
        return has_read

    def next_message(self) -> bytes:
        """Take the oldest of `messages`."""
        message = self.messages.popleft()
        self.queued_bytes -= FRAME_BYTES + len(message)
        return message

    def read_content(self, sink: ExtentSink) -> bool:
        """Pass what has arrived of the current extent to `sink`; return whether the extent is complete.

        Raises as `read_frame` does, and what the sink raises.
        """
        if self.failure is not None:
            raise self.failure
        if sink is not self._sink:
            self._sink = sink
            self._splicing_sink = sink if self._can_splice and isinstance(sink, DescriptorSink) else None
        is_blocked = False
        while self.extent is not None and not is_blocked:
            if self._splicing_sink is not None and not self._must_write and not self._filled_bytes:
                is_blocked = not self._splice(self.extent, self._splicing_sink)
            elif self._opener is not None:
                is_blocked = not self._write_record(self.extent, sink, self._opener)
            else:
                is_blocked = not self._write_block(self.extent, sink)
        if is_blocked:
            return False
        self.extents_read += 1
        return True

    def _write_record(self, extent: Extent, sink: ExtentSink, opener: RecordOpener) -> bool:
        """Write what one record holds of the extent to the sink; False if no record has arrived."""
        if not extent.length:
            self.extent = None
            return True
        try:
            content = opener.take_untrusted(extent.length)
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(error)
        except ProtocolError as error:
            self.failure = error
            raise
        if not content:
            self._fail(None)
        self._has_read = True
        self._advance(extent, len(content))
        with self._file_wait:
            sink.write(extent.file_id, extent.offset, content)
        return True

    def _write_block(self, extent: Extent, sink: ExtentSink) -> bool:
        """Write a whole block of the extent to the sink; False if it has not arrived."""
        if not self._block:
            self._block = memoryview(bytearray(BLOCK_BYTES))
        block = self._block[: extent.length]
        if not self._fill(block):
            return False
        self._advance(extent, len(block))
        if block:
            sink.write(extent.file_id, extent.offset, block)
        return True

    def _splice(self, extent: Extent, sink: DescriptorSink) -> bool:
        """Move up to one pipe of the extent into its file; False if nothing has arrived."""
        target = sink.descriptor(extent.file_id, extent.offset, extent.length)
        if target is None or not self._has_pipe():
            self._must_write = True
            return True
        assert self._pipe is not None
        try:
            length = self._pipe.fill(self._socket.fileno(), extent.length)
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(error)
        if not length:
            self._fail(None)
        self._has_read = True
        self._advance(extent, length)
        written = 0
        try:
            try:
                while written < length:
                    written += self._pipe.empty_into(target, extent.offset + written, length - written)
            except OSError:
                # No space, or no splice on this file system: `write` hits the same problem, and the sink reports it.
                self._splicing_sink = None
            if written:
                sink.on_spliced(extent.file_id, extent.offset, written)
            while written < length:
                data = self._pipe.read(length - written)
                sink.write(extent.file_id, extent.offset + written, memoryview(data))
                written += len(data)
        except BaseException:
            self.close()  # the rest of the pipe belongs to no file
            raise
        return True

    def _has_pipe(self) -> bool:
        if self._pipe is None:
            with suppress(OSError):  # no descriptors left: `write` needs none
                self._pipe = splice.SplicePipe()
        return self._pipe is not None

    def _advance(self, extent: Extent, length: int) -> None:
        file_id, offset, left = extent
        self.extent = Extent(file_id, offset + length, left - length) if left > length else None

    def _fill(self, target: memoryview) -> bool:
        """Receive until `target` is full, over as many calls as that takes; False if more has to arrive."""
        while self._filled_bytes < len(target):
            try:
                count = self._receive_into(target[self._filled_bytes :])
            except BlockingIOError:
                return False
            except OSError as error:
                self._fail(error)
            except ProtocolError as error:
                self.failure = error
                raise
            if not count:
                self._fail(None)
            self._has_read = True
            self._filled_bytes += count
        self._filled_bytes = 0
        return True

    def _fail(self, error: OSError | None) -> NoReturn:
        self.failure = self._lost_error(error)
        raise self.failure from error

    def close(self) -> None:
        """Free everything but the socket."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
