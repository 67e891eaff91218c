"""What the caller's own code raises: hooks, callbacks, and the objects that take files.

An OSError of a hook is no failure of a disk, and a PeerClosedError of a callback that relays files is not the loss of
this connection. Within a session such an exception is therefore a CallbackError. The peer learns that the program has
failed, and the caller gets its own exception, unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from toolkit.channel import Channel
from toolkit.errors import NettoolError
from toolkit.transfer.messages import ErrorMessage, ErrorReason


class CallbackError(NettoolError):
    """The caller's code has raised `error`. It never leaves this package: the caller gets `error` itself."""

    def __init__(self, error: Exception) -> None:
        super().__init__("its program has raised an error")
        self.error = error


@contextmanager
def callers_code(*passed: type[Exception]) -> Iterator[None]:
    """Raise what the block raises as CallbackError, except the kinds that are `passed`."""
    try:
        yield
    except passed:
        raise
    except Exception as error:
        raise CallbackError(error) from error


@contextmanager
def callers_code_before_session(channel: Channel) -> Iterator[None]:
    """As `callers_code`, for a block that runs before the session, and tells the peer. Raises CallbackError."""
    try:
        with callers_code():
            yield
    except CallbackError as error:
        with suppress(NettoolError):  # the peer has gone
            channel.send_message(ErrorMessage(ErrorReason.FAILED, str(error)).encode())
        raise
