"""What comes in over one TCP connection: frames out of a socket that does not block, content into a sink.

Content lands in one of two ways. By `splice`, where the sink lets its files be written to: the kernel then copies each
byte once, from page to page. Else through a block that fits the second-level cache, so that the sink writes and hashes
what is still there.
"""

import socket
from collections import deque
from contextlib import suppress
from typing import Final, NoReturn

from toolkit.channel import Address, DescriptorSink, Extent, ExtentSink
from toolkit.errors import PeerClosedError, ProtocolError, TransferError
from toolkit.transports.tcp import splice
from toolkit.transports.tcp.wire import FRAME_BYTES, decode_frame_untrusted

BLOCK_BYTES: Final = 1 << 19
_MIN_SPLICE_BYTES: Final = 1 << 17
"""Less is done sooner by one read and one write than by two splices and a read for the digest."""


class Inbound:
    """Takes what has come, and never waits.

    messages:      those that are complete, to be taken by `next_message`
    waiting_bytes: what they take
    extent:        what is still to land of the extent that is coming in
    failure:       why nothing more can come
    is_heard:      something came; for whoever watches for silence to reset
    landed_slices: how many extents have landed whole
    """

    def __init__(self, sock: socket.socket, peer: Address, may_splice: bool) -> None:
        self.messages: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.extent: Extent | None = None
        self.failure: TransferError | None = None
        self.is_heard = False
        self.landed_slices = 0
        self._socket = sock
        self._peer = peer
        self._can_splice = may_splice and splice.is_available
        self._header = memoryview(bytearray(FRAME_BYTES))
        self._message: memoryview | None = None
        self._filled_bytes = 0  # of the header, the message or the block
        self._block = memoryview(b"")
        self._pipe: splice.SplicePipe | None = None
        self._is_for_write = False  # the extent that is coming in
        self._sink: ExtentSink | None = None
        self._splicing_sink: DescriptorSink | None = None

    @property
    def is_between_frames(self) -> bool:
        """Nothing has come in halfway."""
        return self._message is None and self.extent is None and not self._filled_bytes

    def take_frame(self) -> bool:
        """Take in a whole message or the header of an extent; False when there is no more for now.

        Raises PeerClosedError, ProtocolError; the same again at every call thereafter.
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
                self._is_for_write = frame.length < _MIN_SPLICE_BYTES
                return True
            self._message = memoryview(bytearray(frame.length))
        if not self._fill(self._message):
            return False
        self.messages.append(self._message.tobytes())
        self.waiting_bytes += FRAME_BYTES + len(self._message)
        self._message = None
        return True

    def next_message(self) -> bytes:
        """The oldest of `messages`."""
        message = self.messages.popleft()
        self.waiting_bytes -= FRAME_BYTES + len(message)
        return message

    def land(self, sink: ExtentSink) -> bool:
        """Land what there is of the current extent; whether that was all of it. Raises also what the sink raises."""
        if self.failure is not None:
            raise self.failure
        if sink is not self._sink:
            self._sink = sink
            self._splicing_sink = sink if self._can_splice and isinstance(sink, DescriptorSink) else None
        is_blocked = False
        while self.extent is not None and not is_blocked:
            if self._splicing_sink is not None and not self._is_for_write and not self._filled_bytes:
                is_blocked = not self._splice(self.extent, self._splicing_sink)
            else:
                is_blocked = not self._land_block(self.extent, sink)
        if is_blocked:
            return False
        self.landed_slices += 1
        return True

    def _land_block(self, extent: Extent, sink: ExtentSink) -> bool:
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
        """Move a pipe full of the extent into its file; False when there is nothing for now."""
        target = sink.descriptor(extent.file_id, extent.offset, extent.length)
        if target is None or not self._has_pipe():
            self._is_for_write = True
            return True
        assert self._pipe is not None
        try:
            taken = self._pipe.fill(self._socket.fileno(), extent.length)
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(error)
        if not taken:
            self._fail(None)
        self.is_heard = True
        self._advance(extent, taken)
        landed = 0
        try:
            try:
                while landed < taken:
                    landed += self._pipe.empty_into(target, extent.offset + landed, taken - landed)
            except OSError:
                # No space, or no splice on this file system: by `write` the sink gets to know, and says what it is.
                self._splicing_sink = None
            if landed:
                sink.landed(extent.file_id, extent.offset, landed)
            while landed < taken:
                data = self._pipe.read(taken - landed)
                sink.write(extent.file_id, extent.offset + landed, memoryview(data))
                landed += len(data)
        except BaseException:
            self.close()  # what is left in the pipe belongs nowhere
            raise
        return True

    def _has_pipe(self) -> bool:
        if self._pipe is None:
            with suppress(OSError):  # no descriptors left: it goes without
                self._pipe = splice.SplicePipe()
        return self._pipe is not None

    def _advance(self, extent: Extent, length: int) -> None:
        file_id, offset, left = extent
        self.extent = Extent(file_id, offset + length, left - length) if left > length else None

    def _fill(self, target: memoryview) -> bool:
        """Receive until `target` is full, in as many calls as that takes; False when there is no more for now."""
        while self._filled_bytes < len(target):
            try:
                count = self._socket.recv_into(target[self._filled_bytes :])
            except BlockingIOError:
                return False
            except OSError as error:
                self._fail(error)
            if not count:
                self._fail(None)
            self.is_heard = True
            self._filled_bytes += count
        self._filled_bytes = 0
        return True

    def _fail(self, error: OSError | None) -> NoReturn:
        self.failure = lost(self._peer, error)
        raise self.failure from error

    def close(self) -> None:
        """Frees everything but the socket."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


def lost(peer: Address, error: OSError | None) -> PeerClosedError:
    """What to raise when the connection has ended, and `error` has told so if there was one."""
    if error is None:
        return PeerClosedError(f"{peer} closed the connection before the end")
    return PeerClosedError(f"the connection to {peer} was lost: {(error.strerror or str(error)).lower()}")
