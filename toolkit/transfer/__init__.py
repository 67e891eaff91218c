"""The shared file-transfer interface: `send` at one end of a channel, `receive` at the other.

    sender                                receiver
    BEGIN, OFFER 0, (a little content)  ->
    OFFER 1                             ->
                                        <-  ACCEPT 0: which entries are accepted
    content of group 0 (extents), DIGESTS ->
                                        <-  RESULT 0: verified under its final name, or the reason why not
    ...                                 ->
    END                                 ->
                                        <-  DONE

Either end may end the session with ERROR. The caller created the channel and closes it: with `close` after a
return or a NettoolError, with `abort` after any other exception, such as KeyboardInterrupt. A session leaves no
unfinished file behind, except what a later session goes on with (unfinished.py).

Start reading in session.py (states, errors), then sender.py and receiver.py. Received files are written and verified in
storage.py, and get their final names in tree.py. docs/protocol.md has the messages.

Each end is imported when it is first used: a program is one of the two, and loading the other would take a tenth of the
time of its start.
"""

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from toolkit.channel import Channel
from toolkit.transfer.comparison import Comparison
from toolkit.transfer.limits import SessionLimits
from toolkit.transfer.offered import SendOptions
from toolkit.transfer.result import Progress, ProgressCallback, TransferResult

if TYPE_CHECKING:
    from toolkit.transfer.destination import Destination
    from toolkit.transfer.receiver import ReceiveOptions
    from toolkit.transfer.scan import Source

__all__ = [
    "Comparison",
    "Progress",
    "ProgressCallback",
    "SendOptions",
    "SessionLimits",
    "TransferResult",
    "receive",
    "send",
]


def send(
    channel: Channel,
    sources: "Sequence[Source]",
    options: SendOptions = SendOptions(),  # noqa: B008 - frozen
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> TransferResult:
    """Send files and, with `options.recursive`, directories; "-" is the standard input. See scan.Source for others.

    `progress` is called from a thread of its own, a few times a second, and at the end. Setting `cancel` ends the
    session.

    Raises UsageError, before anything is sent, for a source that cannot be sent. Raises RefusedError if the
    receiver refused an entry, and VerificationError if an entry arrived damaged, both after every other entry was
    sent. Raises TransferError for any other failure. The error's `result` is the TransferResult so far.
    """
    from toolkit.transfer.sender import SendSession

    return SendSession(channel, sources, options, progress, cancel).run()


def receive(
    channel: Channel,
    directory: "str | os.PathLike[str] | Callable[[], Destination]",
    options: "ReceiveOptions | None" = None,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> TransferResult:
    """Receive the files of one session into `directory`; `options` None means the defaults.

    In place of a directory, the function that opens another destination may be given.

    Entries that this end refused are listed in the result and raise no error. Raises UsageError if `directory`
    does not exist, VerificationError and TransferError as `send` does, each with the `result` so far.
    """
    from toolkit.transfer.receiver import ReceiveOptions, ReceiveSession
    from toolkit.transfer.storage import Storage

    if options is None:
        options = ReceiveOptions()
    destination = directory
    if not callable(destination):
        destination = partial(
            Storage, destination, options.overwrite, options.durable, options.dotfiles, options.preserve_modes
        )
    session = ReceiveSession(
        channel, destination, options.limits, progress, cancel, options.on_begin, options.on_result, options.preserve
    )
    return session.run()
