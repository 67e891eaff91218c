"""The shared file-transfer interface: `send` at one end of a channel, `receive` at the other.

    sender                                receiver
    BEGIN, OFFER 0, (a little content)  ->
    OFFER 1                             ->
                                        <-  ACCEPT 0: what is taken
    content of group 0 (extents), DIGESTS ->
                                        <-  RESULT 0: verified under its name, or why not
    ...                                 ->
    END                                 ->
                                        <-  DONE

Either end ends the session with ERROR. Who made the channel closes it: in order after a return or an error of
the family, at once (`abort`) after anything else, such as KeyboardInterrupt. Nothing of an unfinished file is
left.
"""

import os
import threading
from collections.abc import Sequence

from toolkit.channel import Channel
from toolkit.transfer.receiver import ReceiveOptions, Receiver
from toolkit.transfer.result import ProgressCallback, ReceiveReport, SendReport
from toolkit.transfer.sender import Sender, SendOptions


def send(
    channel: Channel,
    sources: Sequence[str | os.PathLike[str]],
    options: SendOptions = SendOptions(),  # noqa: B008 - frozen
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> SendReport:
    """Send files and, if the options say so, directories ("-" is the standard input).

    `progress` is called from this thread for every slice of content; `cancel`, once set, ends the session.

    Raises, always with what was done in the error's `report`: UsageError for sources that cannot be sent,
    before anything is; RefusedError when the receiver did not take something, VerificationError when
    something arrived otherwise than it was sent, both after the rest was sent; TransferError for everything
    else.
    """
    return Sender(channel, sources, options, progress, cancel).run()


def receive(
    channel: Channel,
    directory: str | os.PathLike[str],
    options: ReceiveOptions = ReceiveOptions(),  # noqa: B008 - frozen
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> ReceiveReport:
    """Receive one session's files into `directory`.

    What was refused is in the report and no error here. Raises, with what was done in the error's `report`:
    UsageError for a directory that is not there, VerificationError and TransferError as `send` does.
    """
    return Receiver(channel, directory, options, progress, cancel).run()
