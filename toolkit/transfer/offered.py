"""What a sender has offered, and how it sends: options, and the groups that have no RESULT yet."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from toolkit.errors import ProtocolError
from toolkit.transfer.chunks import HELD_PARAMETER, decode_held_untrusted
from toolkit.transfer.comparison import Comparison, digest_of, is_compared
from toolkit.transfer.digest import DEFAULT_ALGORITHM, Algorithm
from toolkit.transfer.messages import Accept, EntryOutcome, EntryStatus, FileDigest
from toolkit.transfer.result import EntryResult
from toolkit.transfer.resumption import Resumption
from toolkit.transfer.scan import SourceEntry
from toolkit.transfer.selection import EVERYTHING, Selection
from toolkit.transfer.sources import SourceChangedError, Stream


@dataclass(frozen=True, slots=True)
class SendOptions:
    """How to send.

    digest:      the name of an algorithm in `digest.ALGORITHMS`
    recursive:   whether directories are sent, with everything in them
    stream_name: the name that standard input, given as "-", has at the receiver
    stream_fd:   the descriptor to read standard input from
    open_stream: makes the content that is sent instead of standard input; None to read `stream_fd`
    on_accepted: called when the receiver's answer to the first offer has come
    on_result:   called with what has become of each entry that was offered
    resume_key:  RESUME_KEY_BYTES by which the receiver finds unfinished files; None to leave none and to send all anew
    reconnection_key: RECONNECTION_KEY_BYTES by which this sender is let in again; None if it does not come back
    is_reconnected: whether an earlier session has just been lost: then nothing is sent before the receiver's answer
    update:      how the receiver recognises files that it has already, which are not sent; None to send all
    selection:   what of directories is sent
    """

    digest: str = DEFAULT_ALGORITHM
    recursive: bool = False
    stream_name: str = "stdin"
    stream_fd: int = 0
    open_stream: Callable[[Algorithm], Stream] | None = None
    on_accepted: Callable[[], None] = lambda: None
    on_result: Callable[[EntryResult], None] = lambda _: None
    update: Comparison | None = None
    selection: Selection = EVERYTHING
    resume_key: bytes | None = None
    reconnection_key: bytes | None = field(default=None, repr=False)
    is_reconnected: bool = False


@dataclass(slots=True)
class OfferedGroup:
    """An offered group.

    decisions: of the receiver; None until they arrive
    digests:   sent, by index
    resumptions: of the files of which the receiver holds something, by index
    withdrawn: the indices of files that the receiver has given up since it accepted them
    """

    number: int
    first_id: int
    sources: list[SourceEntry]
    decisions: tuple[EntryOutcome, ...] | None = None
    digests: dict[int, FileDigest] = field(default_factory=dict)
    withdrawn: set[int] = field(default_factory=set)
    resumptions: dict[int, Resumption] = field(default_factory=dict)

    def on_accept(self, message: Accept) -> None:
        """Take the receiver's decisions, and what it holds. Raises ProtocolError."""
        self.decisions = message.outcomes
        held = decode_held_untrusted(message.parameters.get(HELD_PARAMETER, b""))
        for index, ranges in held.items():
            size_bytes = self.sources[index].entry.size_bytes if index < len(self.sources) else None
            if size_bytes is None or self.is_unwanted(index):
                raise ProtocolError("the receiver holds chunks of something else than a file that it accepts")
            self.resumptions[index] = Resumption(ranges, size_bytes)

    def kept_bytes(self, index: int) -> int:
        """How much of a file the receiver had, and keeps."""
        resumption = self.resumptions.get(index)
        return 0 if resumption is None else resumption.kept_bytes

    def is_unwanted(self, index: int) -> bool:
        """Whether the receiver does not take this entry, or has given it up."""
        if self.decisions is None:
            return False
        return self.decisions[index].status is not EntryStatus.OK or index in self.withdrawn


def content_parameter(sources: Sequence[SourceEntry], algorithm: Algorithm) -> bytes:
    """The digests that go with an offer whose files are compared by content: reads all of them.

    A file that can no longer be read has zeros, which are no digest: it is sent, and then withdrawn with the reason.
    """
    return b"".join(_content_digest(source, algorithm) for source in sources if is_compared(source.entry))


def _content_digest(source: SourceEntry, algorithm: Algorithm) -> bytes:
    assert source.origin is not None
    try:
        descriptor = source.origin.open()
        try:
            return digest_of(descriptor, algorithm)
        finally:
            os.close(descriptor)
    except (SourceChangedError, OSError):
        return bytes(algorithm.digest_bytes)
