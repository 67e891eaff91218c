"""What a session returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from toolkit.channel import Address, Channel, Statistic
from toolkit.transfer.result import (
    DeliveredFile,
    DeliveryStatus,
    TransferResult,
    UndeliveredEntries,
    UndeliveredEntry,
    UnfinishedEntry,
)
from toolkit.units import rate_of


@dataclass(frozen=True, slots=True)
class SessionResult(UndeliveredEntries):
    """What has become of one session, as this end sees it.

    transport:     "tcp" or "udp"
    peer:          the other end
    seconds:       from the first connect, at a receiver from its first message, to the last verified digest
    cpu_seconds:   processor time of this process meanwhile
    algorithm:     of the digests
    digest:        of the only file, or of the listing of several, in hexadecimal; both ends have the same
    file_count:    number of files that are verified under their names at the receiver; directories do not count
    size_bytes:    their size, with holes
    hole_bytes:    how much of that is holes, which are not sent
    resumed_bytes: how much of that came from earlier sessions, and was not sent
    unchanged:     number of files that the receiver had already, and that were not sent
    files:         the first thousand of the files
    undelivered:   entries that were not delivered, each with the reason; at most a thousand of each status
    omitted:       number of entries left out of `undelivered`, by status
    unfinished:    at a receiver: files of which it has kept a part, which another session goes on with
    statistics:    what the transport counted, by the names of docs/data-format.md
    """

    transport: str
    peer: Address
    seconds: float
    cpu_seconds: float
    algorithm: str
    digest: str
    file_count: int
    size_bytes: int
    hole_bytes: int
    resumed_bytes: int
    unchanged: int
    files: Sequence[DeliveredFile]
    undelivered: Sequence[UndeliveredEntry]
    omitted: Mapping[DeliveryStatus, int]
    unfinished: Sequence[UnfinishedEntry]
    statistics: Mapping[str, Statistic]

    @classmethod
    def of(cls, transport: str, channel: Channel, result: TransferResult, seconds: float, cpu_seconds: float) -> Self:
        """The result of a session over `channel`, finished or not."""
        return cls(
            transport=transport,
            peer=channel.peer,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            algorithm=result.algorithm,
            digest=result.digest,
            file_count=result.files,
            size_bytes=result.size_bytes,
            hole_bytes=result.hole_bytes,
            resumed_bytes=result.resumed_bytes,
            unchanged=result.unchanged,
            files=tuple(result.delivered),
            undelivered=tuple(result.undelivered),
            omitted=dict(result.omitted),
            unfinished=tuple(result.unfinished),
            statistics=dict(channel.statistics()),
        )

    @property
    def goodput_bps(self) -> float:
        """The content that travelled in this session, in bits per second."""
        return rate_of(self.size_bytes - self.hole_bytes - self.resumed_bytes, self.seconds)
