"""What both ends of a session have in common: messages through the state table, and how a session ends badly.

An end that fails says why (ERROR) and stops; an end that is told so raises what the other said. When the
channel breaks, the last messages are still looked at: the reason is better than the fact.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

from toolkit.channel import MIN_IDLE_TIMEOUT_S, Channel, ExtentSink
from toolkit.errors import (
    NettoolError,
    PeerClosedError,
    ProtocolError,
    RefusedError,
    TransferError,
    UsageError,
    printable,
)
from toolkit.transfer.messages import Alive, AnyMessage, ErrorMessage, ErrorReason, decode_untrusted
from toolkit.transfer.states import Role, SessionState, advance

# How often an end that waits looks up: says something where it has said nothing since, and sees that it shall stop.
# The idle timeout that counts is the peer's, and unknown here.
ALIVE_INTERVAL_S = MIN_IDLE_TIMEOUT_S / 4
LAST_WORDS_TIMEOUT_S = 1.0


class _PeerFailure(Exception):  # noqa: N818 - it carries the error that is raised
    """The peer has ended the session; `error` says why."""

    def __init__(self, error: NettoolError) -> None:
        self.error = error


class SessionEndpoint:
    """One end of a session over a channel."""

    def __init__(self, channel: Channel, party: Role, cancel: threading.Event | None) -> None:
        self._channel = channel
        self._party = party
        self._peer = Role.RECEIVER if party is Role.SENDER else Role.SENDER
        self._cancel = cancel
        self._last_sent_s = time.monotonic()
        self.state = SessionState.NEW

    @property
    def is_over(self) -> bool:
        """Whether nothing may follow."""
        return self.state is SessionState.OVER

    def send(self, message: AnyMessage) -> None:
        """Send, as the state allows. Raises PeerClosedError."""
        self.state = advance(self.state, self._party, message.TYPE)
        self._channel.send_message(message.encode())
        self._last_sent_s = time.monotonic()

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> AnyMessage | None:
        """As Channel.receive, for ALIVE_INTERVAL_S where no time is given; ALIVE gives None.

        Raises what the peer's ERROR says, and ProtocolError for what may not come now.
        """
        self.check_cancelled()
        data = self._channel.receive(sink, ALIVE_INTERVAL_S if timeout_s is None else timeout_s, wake)
        if data is None:
            return None
        message = decode_untrusted(data)
        self.state = advance(self.state, self._peer, message.TYPE)
        if isinstance(message, ErrorMessage):
            raise _PeerFailure(_said_by(self._peer, message))
        return None if isinstance(message, Alive) else message

    def stay_alive(self) -> None:
        """Say something if nothing was said for ALIVE_INTERVAL_S: the peer may have nothing else to go by."""
        if time.monotonic() - self._last_sent_s >= ALIVE_INTERVAL_S:
            self.send(Alive())

    def check_cancelled(self) -> None:
        """Raises TransferError when the caller wants the session to end."""
        if self._cancel is not None and self._cancel.is_set():
            raise _CancelledError("the transfer was stopped")

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Whatever goes wrong within is told to the peer, or has come from it; out comes one error of the
        family.
        """
        try:
            yield
        except _PeerFailure as failure:
            raise failure.error from None
        except PeerClosedError as lost:
            raise self._last_words() or lost from None
        except NettoolError as error:
            # How this end was called, and its paths, are no business of the other.
            text = "it was started wrongly" if isinstance(error, UsageError) else str(error)
            self._tell(_reason_for(error), text)
            raise
        except OSError as error:
            failed = TransferError(f"the system refuses: {error.strerror or error}")
            self._tell(ErrorReason.FAILED, str(failed))
            raise failed from error

    def _tell(self, reason: ErrorReason, text: str) -> None:
        if not self.is_over:
            with contextlib.suppress(NettoolError):
                self.send(ErrorMessage(reason, text))

    def _last_words(self) -> NettoolError | None:
        """Why the peer has closed, if it said so before."""
        with contextlib.suppress(NettoolError):
            while (data := self._channel.receive(timeout_s=LAST_WORDS_TIMEOUT_S)) is not None:
                message = decode_untrusted(data)
                if isinstance(message, ErrorMessage):
                    return _said_by(self._peer, message)
        return None


class VersionError(RefusedError):
    """The peer speaks another version of the session."""


class _CancelledError(TransferError):
    """The caller of this end wants it to stop."""


def _reason_for(error: NettoolError) -> ErrorReason:
    if isinstance(error, _CancelledError):
        return ErrorReason.CANCELLED
    if isinstance(error, VersionError):
        return ErrorReason.VERSION
    if isinstance(error, ProtocolError):
        return ErrorReason.PROTOCOL
    return ErrorReason.REFUSED if isinstance(error, RefusedError) else ErrorReason.FAILED


def _said_by(party: Role, message: ErrorMessage) -> NettoolError:
    who, text = f"the {party.value}", printable(message.text)
    if message.reason is ErrorReason.VERSION:
        return RefusedError(f"{who} is of another version, use the same on both sides: {text}")
    if message.reason is ErrorReason.REFUSED:
        return RefusedError(f"{who} refuses: {text}")
    if message.reason is ErrorReason.CANCELLED:
        return TransferError(f"{who} has stopped the transfer")
    return TransferError(f"{who} says: {text}")
