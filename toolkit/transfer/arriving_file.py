"""What a session asks of a file that arrives (ArrivingFile), whatever its destination does with the content."""

from collections.abc import Sequence
from typing import Protocol

from toolkit.transfer.chunks import ChunkRange
from toolkit.transfer.manifest import Entry
from toolkit.transfer.messages import EntryOutcome


class ArrivingFile(Protocol):
    """A file that arrives: `write` may be called from any thread, the rest from the session's.

    entry:          what was offered, or what a program chose in its place (chosen.py)
    kept_bytes:     how much was there, from an earlier session or version, and the sender's digests have confirmed
    is_unfinished:  whether what has arrived was left to a later session
    failure:        why the content cannot be stored, in words for both users; None unless that has happened
    held:           the chunks that an earlier session has left or an earlier version has, and that nobody has compared
    arrived_bytes:  how much of the content is here
    size_bytes:     the final size, once it is known
    digest:         of the content up to the first missing byte
    """

    entry: Entry

    @property
    def kept_bytes(self) -> int: ...
    @property
    def is_unfinished(self) -> bool: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def held(self) -> tuple[ChunkRange, ...]: ...
    @property
    def arrived_bytes(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def digest(self) -> bytes: ...

    @property
    def has_expected_digest(self) -> bool:
        """Whether the sender's digest has come."""

    def write(self, offset: int, data: memoryview) -> None:
        """Store content. Raises ProtocolError, LimitError."""

    def descriptor(self, offset: int, length: int) -> int | None:
        """See DescriptorSink; for a channel that writes the content in one thread only."""

    def on_spliced(self, offset: int, length: int) -> None:
        """See DescriptorSink."""

    def write_hole(self, offset: int, length: int) -> None:
        """Take note of a range of zeros that is not sent, and not written. Raises ProtocolError, LimitError."""

    def compare(self, first: int, digests: Sequence[bytes]) -> tuple[bool, ...]:
        """Keep each chunk from `first` on whose digest is the sender's; which ones. Raises ProtocolError."""

    def expect(self, size_bytes: int, digest: bytes) -> None:
        """Take the sender's final size and digest. Raises ProtocolError if they contradict what came before."""

    def commits_quickly(self) -> bool:
        """Whether `commit` returns at once; if not, the session stays alive meanwhile."""

    def commit(self) -> EntryOutcome:
        """Verify a complete file and keep it under its final name, or discard it; FAILED if it has failed."""

    def discard(self, keep: bool = False) -> None:
        """Give up the file: nothing remains of it unless `commit` has kept it. Idempotent.

        keep: leave to a later session what has arrived, if the destination can; `is_unfinished` then
        """
