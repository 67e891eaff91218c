"""What both ends of a session share: the state table, messages checked against it, and how a session fails.

An end that fails sends ERROR with the reason and stops; the other end raises that reason. If the channel breaks,
the messages that have already arrived are searched for an ERROR, which explains more than "connection lost".
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from enum import Enum
from typing import TypeVar

from toolkit.channel import MIN_IDLE_TIMEOUT_S, Channel, ExtentSink
from toolkit.errors import (
    LateRefusalError,
    NettoolError,
    PeerClosedError,
    ProtocolError,
    RefusedError,
    TransferError,
    UsageError,
    printable,
)
from toolkit.parameters import grease
from toolkit.transfer.message_types import MessageType
from toolkit.transfer.messages import (
    Accept,
    Alive,
    AnyMessage,
    Begin,
    ErrorMessage,
    ErrorReason,
    Offer,
    decode_untrusted,
)

# How often a waiting end wakes up, to send ALIVE if it has sent nothing since and to check for cancellation. The
# relevant idle timeout is the peer's, which this end does not know.
ALIVE_INTERVAL_S = MIN_IDLE_TIMEOUT_S / 4
RECONNECTION_KEY_PARAMETER = 4
"""The id among the parameters of a BEGIN: RECONNECTION_KEY_BYTES (toolkit/security/reconnections.py); its sender comes
back if the connection is lost."""
FINAL_MESSAGE_TIMEOUT_S = 1.0
FINAL_MESSAGES_S = 5.0
"""How long an end whose channel broke reads what had arrived before, whatever the peer still sends."""


_Result = TypeVar("_Result")


class Role(Enum):
    """The two ends of a session."""

    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def peer(self) -> "Role":
        """The other end."""
        return Role.RECEIVER if self is Role.SENDER else Role.SENDER


class SessionState(Enum):
    """The state of a session, as one end knows it."""

    NEW = "new"
    OPEN = "open"  # offers and content
    ENDED = "ended"  # the sender has offered and sent everything
    CLOSED = "closed"  # DONE or ERROR


_SENDER, _RECEIVER = Role.SENDER, Role.RECEIVER

# Both ends keep the state and advance it with every message that they send or receive. The table allows for messages
# in flight: after END, a sender still receives decisions and results that the receiver sent before END arrived.
TRANSITIONS: dict[tuple[SessionState, Role, MessageType], SessionState] = {
    (SessionState.NEW, _SENDER, MessageType.BEGIN): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.OFFER): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.CHUNKS): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.HOLE): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.DIGESTS): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.WITHDRAW): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.ALIVE): SessionState.OPEN,
    (SessionState.OPEN, _SENDER, MessageType.END): SessionState.ENDED,
    (SessionState.OPEN, _RECEIVER, MessageType.ACCEPT): SessionState.OPEN,
    (SessionState.OPEN, _RECEIVER, MessageType.KEPT): SessionState.OPEN,
    (SessionState.OPEN, _RECEIVER, MessageType.RESULT): SessionState.OPEN,
    (SessionState.OPEN, _RECEIVER, MessageType.WITHDRAW): SessionState.OPEN,
    (SessionState.OPEN, _RECEIVER, MessageType.ALIVE): SessionState.OPEN,
    (SessionState.ENDED, _SENDER, MessageType.ALIVE): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.ACCEPT): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.KEPT): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.RESULT): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.WITHDRAW): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.ALIVE): SessionState.ENDED,
    (SessionState.ENDED, _RECEIVER, MessageType.DONE): SessionState.CLOSED,
    **{
        (state, role, MessageType.ERROR): SessionState.CLOSED
        for state in (SessionState.NEW, SessionState.OPEN, SessionState.ENDED)
        for role in Role
    },
}  # fmt: skip


def advance(state: SessionState, role: Role, message: MessageType) -> SessionState:
    """The state after `role` sends a message of this type. Raises ProtocolError if `state` does not allow it."""
    following = TRANSITIONS.get((state, role, message))
    if following is None:
        raise ProtocolError(f"the {role.value} sent {message.name} in session state {state.name}")
    return following


class VersionError(RefusedError):
    """The peer uses another version of the session protocol."""


class _CancelledError(TransferError):
    """The caller of this end cancelled the session."""


class _PeerFailure(Exception):  # noqa: N818 - it carries the error that is raised
    """The peer ended the session with ERROR; `error` is what this end raises."""

    def __init__(self, error: NettoolError) -> None:
        self.error = error


class SessionEndpoint:
    """One end of a session over a channel.

    state: the state of the session; advanced by `send` and `receive` only
    check: called where the session looks whether its caller has cancelled it; what it raises ends the session
    """

    def __init__(
        self,
        channel: Channel,
        role: Role,
        cancel: threading.Event | None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.state = SessionState.NEW
        self._channel = channel
        self._role = role
        self._cancel = cancel
        self._check = check
        self._last_sent_s = time.monotonic()
        channel.check_while_waiting(self.check_cancelled)

    def send(self, message: AnyMessage, has_more: bool = False) -> None:
        """Send a message that the state allows, with a parameter that the peer does not know if it may have any.

        `has_more` is that of `Channel.send_message`. Raises PeerClosedError.
        """
        self.state = advance(self.state, self._role, message.TYPE)
        if isinstance(message, Begin | Offer | Accept):
            message = replace(message, parameters={**message.parameters, **dict([grease(os.urandom)])})
        self._channel.send_message(message.encode(), has_more)
        self._last_sent_s = time.monotonic()

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> AnyMessage | None:
        """The next message, as Channel.receive returns it; None also for ALIVE.

        `timeout_s` None waits for ALIVE_INTERVAL_S. Raises ProtocolError for a message that the state does not
        allow, and TransferError if the session was cancelled. An ERROR of the peer leaves
        `reporting_failures` as the error that it stands for.
        """
        self.check_cancelled()
        data = self._channel.receive(sink, ALIVE_INTERVAL_S if timeout_s is None else timeout_s, wake)
        if data is None:
            return None
        message = decode_untrusted(data)
        self.state = advance(self.state, self._role.peer, message.TYPE)
        if isinstance(message, ErrorMessage):
            raise _PeerFailure(self._peer_error(message))
        return None if isinstance(message, Alive) else message

    def check_cancelled(self) -> None:
        """Raise TransferError if the caller has cancelled the session, and what `check` raises."""
        self._check()
        if self._cancel is not None and self._cancel.is_set():
            raise _CancelledError("the transfer was cancelled")

    def keep_alive(self) -> None:
        """Send ALIVE if this end has sent no message for ALIVE_INTERVAL_S.

        If the peer has just closed the channel, its last messages may still be unread: the next `receive` returns
        them, and then reports the end.
        """
        if self.state is not SessionState.CLOSED and time.monotonic() - self._last_sent_s >= ALIVE_INTERVAL_S:
            with contextlib.suppress(PeerClosedError):
                self.send(Alive())

    def file_access(self) -> contextlib.AbstractContextManager[object]:
        """See Channel: for what is usually quick. What is known to take long is for `run_alive`."""
        return self._channel.file_access()

    def run_alive(self, work: Callable[[], _Result]) -> _Result:
        """Do something that may take longer than the peer waits in silence: send ALIVE meanwhile.

        `work` is run in another thread, and uses nothing of this endpoint. Returns and raises what it does.
        """
        with ThreadPoolExecutor(1) as executor:
            future: Future[_Result]
            try:
                future = executor.submit(work)
            except RuntimeError:  # no thread is left
                with self.file_access():
                    return work()
            while True:
                with self.file_access():  # what the peer sends meanwhile is read only every other interval
                    is_done = bool(wait([future], 2 * ALIVE_INTERVAL_S).done)
                if is_done:
                    return future.result()
                self.keep_alive()

    @contextlib.contextmanager
    def reporting_failures(self) -> Iterator[None]:
        """Report any failure in the block to the peer and re-raise it as a NettoolError.

        A failure that the peer reported is raised as it came, and not sent back.
        """
        try:
            yield
        except _PeerFailure as failure:
            raise failure.error from None
        except PeerClosedError as lost:
            raise self._pending_peer_error() or lost from None
        except NettoolError as error:
            # A usage error names local options and paths, which do not concern the peer. The directory of a receiver
            # that has run for days may be gone since.
            text = "its arguments or its directory are at fault" if isinstance(error, UsageError) else str(error)
            self._send_error(_reason_for(error), text)
            raise
        except OSError as error:
            failed = TransferError(f"operating system error: {error.strerror or error}")
            self._send_error(ErrorReason.FAILED, str(failed))
            raise failed from error

    def _send_error(self, reason: ErrorReason, text: str) -> None:
        if self.state is not SessionState.CLOSED:
            with contextlib.suppress(NettoolError):
                self.send(ErrorMessage(reason, text))

    def _pending_peer_error(self) -> NettoolError | None:
        """The error that the peer sent before it closed the channel, if it did."""
        deadline_s = time.monotonic() + FINAL_MESSAGES_S
        try:
            while (left_s := deadline_s - time.monotonic()) > 0:
                data = self._channel.receive(timeout_s=min(left_s, FINAL_MESSAGE_TIMEOUT_S))
                if data is None:
                    break
                message = decode_untrusted(data)
                if isinstance(message, ErrorMessage):
                    return self._peer_error(message)
        except LateRefusalError as error:
            return error
        except NettoolError:
            pass
        return None

    def _peer_error(self, message: ErrorMessage) -> NettoolError:
        peer, text = f"the {self._role.peer.value}", printable(message.text)
        if message.reason is ErrorReason.VERSION:
            return RefusedError(f"{peer} has an incompatible version; use the same one on both sides ({text})")
        if message.reason is ErrorReason.REFUSED:
            return RefusedError(f"{peer} refused the session: {text}")
        if message.reason is ErrorReason.CANCELLED:
            return TransferError(f"{peer} cancelled the transfer")
        return TransferError(f"{peer} failed: {text}")


@contextlib.contextmanager
def closing(channel: Channel, linger_s: float | None = None) -> Iterator[None]:
    """Close the channel when the block ends, or abort it if the block raises anything but a NettoolError.

    `linger_s` is how long to wait for a peer that is silent when the session has succeeded; see `Channel.close`.
    """
    try:
        yield
    except NettoolError:
        try:
            channel.close()  # delivers the error message that is still queued for the peer
        except Exception:  # content may be queued too, and the session has closed its sources
            channel.abort()
        raise
    except BaseException:
        channel.abort()
        raise
    channel.close(linger_s)


def _reason_for(error: NettoolError) -> ErrorReason:
    if isinstance(error, _CancelledError):
        return ErrorReason.CANCELLED
    if isinstance(error, VersionError):
        return ErrorReason.VERSION
    if isinstance(error, ProtocolError):
        return ErrorReason.PROTOCOL
    return ErrorReason.REFUSED if isinstance(error, RefusedError) else ErrorReason.FAILED
