"""A conversation: lines of text over one channel, in both directions at once.

A channel belongs to one thread. Lines that are to be sent are put into a queue by another thread, which may wait for a
person; the channel's thread waits for the peer and for that queue at once, so neither direction blocks the other.

    HELLO   version; the first message of each side, and of who has connected first
    LINES   UTF-8 text; a newline between two lines, none after the last
    ALIVE   nothing; shows that a silent side is still there
    END     how many lines this side has sent; no more follow
    BYE     every line up to the peer's END has arrived; the conversation is over for a side that has sent and got one
"""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from toolkit.channel import Channel
from toolkit.conversation.lines import LineQueue
from toolkit.errors import ProtocolError, RefusedError, TransferError, printable
from toolkit.transfer.message_types import MessageType
from toolkit.transfer.messages import ErrorMessage, ErrorReason

TALK_VERSION: Final = 1
ALIVE_INTERVAL_S: Final = 5.0
_CANCEL_CHECK_S: Final = 0.25
_MAX_TEXT_BYTES: Final = 1 << 17
_MESSAGES_PER_ROUND: Final = 64
_END: Final = struct.Struct("!Q")


class TalkMessage(IntEnum):
    """The type of a message, its first byte. A file-transfer session uses none of them (docs/protocol.md)."""

    HELLO = 0x40
    LINES = 0x41
    ALIVE = 0x42
    END = 0x43
    BYE = 0x44


@dataclass(slots=True)
class TalkCounts:
    """How many lines were sent and received."""

    sent: int = 0
    received: int = 0


class _UnwantedContent:
    """Takes what a sender of files sends before it has learnt that nobody here wants it."""

    def write(self, file_id: int, offset: int, data: memoryview) -> None:
        """See ExtentSink."""


_UNWANTED_CONTENT: Final = _UnwantedContent()


class Conversation:
    """One side of a conversation.

    is_client:    whether this side has connected
    outgoing:     the lines to send; over when this side has nothing more to say
    on_line:      called with each line that arrives, in order; the text is the peer's: make it printable
    on_peer_end:  called when the peer has said everything and this side has not
    is_cancelled: asked several times a second whether to stop
    on_own_end:   called when this side has said everything and the peer has not

    `counts` may be read at any time.
    """

    def __init__(
        self,
        channel: Channel,
        is_client: bool,
        outgoing: LineQueue,
        on_line: Callable[[str], object],
        on_peer_end: Callable[[], object] = lambda: None,
        is_cancelled: Callable[[], bool] = lambda: False,
        on_own_end: Callable[[], object] = lambda: None,
    ) -> None:
        self.counts = TalkCounts()
        self._channel, self._is_client, self._outgoing = channel, is_client, outgoing
        self._on_line, self._on_peer_end, self._is_cancelled = on_line, on_peer_end, is_cancelled
        self._on_own_end = on_own_end
        self._has_greeted = self._has_ended = self._has_confirmed = False  # the peer: with HELLO, END and BYE
        self._is_done = False  # this side has sent END
        self._alive_ns = 0  # when to send ALIVE

    @property
    def is_over(self) -> bool:
        """Whether both sides have everything."""
        return self._has_ended and self._has_confirmed

    def run(self) -> None:
        """Talk until both sides have everything, or until it is cancelled. Closing the channel is up to the caller.

        Raises RefusedError if the peer is no talk, TransferError if lines are missing, and what the channel raises.
        """
        if self._is_client:
            self._send(TalkMessage.HELLO, bytes([TALK_VERSION]))
        while not self.is_over and not self._is_cancelled():
            may_send = self._is_client or self._has_greeted
            if may_send:
                self._send_waiting()
            wake = self._outgoing.fileno() if may_send and not self._is_done else None
            message = self._channel.receive(self._sink, self._wait_s(), wake)
            self._handle_waiting_untrusted(message)

    def _handle_waiting_untrusted(self, message: bytes | None) -> None:
        """Handle a message and those that wait behind it, up to a limit: then it is this side's turn to send."""
        handled = 0
        while message is not None:
            self._handle_untrusted(message)
            handled += 1
            is_enough = self.is_over or handled == _MESSAGES_PER_ROUND
            message = None if is_enough else self._channel.receive(self._sink, 0)

    @property
    def _sink(self) -> _UnwantedContent | None:
        return None if self._has_greeted else _UNWANTED_CONTENT

    def _wait_s(self) -> float:
        """How long to wait for a message now."""
        if not (self._is_client or self._has_greeted):
            return _CANCEL_CHECK_S
        if self._outgoing.has_more or (self._outgoing.is_over and not self._is_done):
            return 0.0
        return max(0.0, min(_CANCEL_CHECK_S, (self._alive_ns - time.monotonic_ns()) / 1e9))

    def _send(self, kind: TalkMessage, body: bytes = b"") -> None:
        self._channel.send_message(bytes([kind]) + body)
        self._alive_ns = time.monotonic_ns() + int(ALIVE_INTERVAL_S * 1e9)

    def _send_waiting(self) -> None:
        if lines := self._outgoing.take(_MAX_TEXT_BYTES):
            self._send(TalkMessage.LINES, b"\n".join(lines))
            self.counts.sent += len(lines)
        elif self._outgoing.is_over and not self._is_done:
            self._send(TalkMessage.END, _END.pack(self.counts.sent))
            self._is_done = True
            if not self._has_ended:
                self._on_own_end()
        elif time.monotonic_ns() >= self._alive_ns:
            self._send(TalkMessage.ALIVE)

    def _handle_untrusted(self, message: bytes) -> None:
        """Take a message of the peer. Raises RefusedError, ProtocolError, TransferError."""
        kind, body = message[:1], message[1:]
        if not self._has_greeted:
            self._greet_untrusted(kind, body)
        elif kind == bytes([TalkMessage.LINES]) and not self._has_ended:
            for line in body.split(b"\n"):
                self.counts.received += 1
                self._on_line(line.decode("utf-8", "backslashreplace"))
        elif kind == bytes([TalkMessage.END]) and not self._has_ended:
            if len(body) != _END.size:
                raise ProtocolError("the peer sent an END of a wrong length")
            (count,) = _END.unpack(body)
            if count != self.counts.received:
                raise TransferError(f"the peer has sent {count} lines, and {self.counts.received} have arrived")
            self._has_ended = True
            self._send(TalkMessage.BYE)
            if not self._is_done:
                self._on_peer_end()
        elif kind == bytes([TalkMessage.BYE]) and self._is_done:
            self._has_confirmed = True
        elif kind != bytes([TalkMessage.ALIVE]):
            raise ProtocolError(f"the peer sent an unexpected message type 0x{kind.hex()}")

    def _greet_untrusted(self, kind: bytes, body: bytes) -> None:
        if kind == bytes([TalkMessage.HELLO]):
            if body[:1] != bytes([TALK_VERSION]):
                raise RefusedError(f"{self._channel.peer} speaks another version of talk: install the same nettool")
            self._has_greeted = True
            if not self._is_client:
                self._send(TalkMessage.HELLO, bytes([TALK_VERSION]))
            return
        if kind and kind[0] in set(map(int, MessageType)):
            refusal = "this is nettool talk; for files, run `nettool recv` here"
            self._channel.send_message(ErrorMessage(ErrorReason.REFUSED, refusal).encode())
            raise RefusedError(f"{self._channel.peer} sends or receives files: run `nettool talk` there")
        raise ProtocolError("the peer does not speak nettool talk")


def describe_talk(message: bytes, is_sent: bool) -> str:
    """Say in a line what a message is about; "" for one that explains nothing."""
    verb = "sends" if is_sent else "got"
    kind, body = message[:1], message[1:]
    if kind == bytes([TalkMessage.LINES]):
        first, *others = body.decode("utf-8", "backslashreplace").split("\n")
        more = f" and {len(others):,} more" if others else ""
        return f"{verb} a line: {printable(first, 40)}{more}"
    if kind == bytes([TalkMessage.END]):
        return "says: no more lines follow" if is_sent else "heard: no more lines follow"
    if kind == bytes([TalkMessage.BYE]):
        return "says: every line has arrived" if is_sent else "heard: every line has arrived"
    return ""
