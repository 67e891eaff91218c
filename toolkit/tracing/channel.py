"""A channel that explains the calls of a session: what is said before the calls that say it."""

from collections.abc import Callable, Mapping

from toolkit.channel import Address, Channel, Extent, ExtentSink, ExtentSource, Statistic
from toolkit.tracing.call import CallTrace
from toolkit.tracing.meaning import describe_message

Describe = Callable[[bytes, bool], str]


class ExplainedChannel:
    """A Channel that passes every call on to `channel`, and remarks in `trace` what the session is doing.

    describe: says in a line what a message is about, and whether it is sent; "" for one that explains nothing
    """

    def __init__(self, channel: Channel, trace: CallTrace, describe: Describe = describe_message) -> None:
        self._channel, self._trace, self._describe = channel, trace, describe
        self._file_id = -1  # whose content was sent last

    @property
    def peer(self) -> Address:
        """See Channel."""
        return self._channel.peer

    def send_message(self, message: bytes, has_more: bool = False) -> None:
        """See Channel."""
        if text := self._describe(message, True):
            self._trace.remark(text)
        self._channel.send_message(message, has_more)

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        """See Channel."""
        if extent.file_id != self._file_id:
            self._file_id = extent.file_id
            self._trace.remark(f"now the content of file {extent.file_id + 1}: read a piece, send it, and again")
        self._channel.send_extent(extent, source)

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """See Channel."""
        message = self._channel.receive(sink, timeout_s, wake)
        if message is not None and (text := self._describe(message, False)):
            self._trace.remark(text)
        return message

    def flush(self) -> None:
        """See Channel."""
        self._channel.flush()

    def close(self, patience_s: float | None = None) -> None:
        """See Channel."""
        self._trace.remark("everything is done: the connection is closed")
        self._channel.close(patience_s)

    def abort(self) -> None:
        """See Channel."""
        self._channel.abort()

    @property
    def acknowledged_bytes(self) -> int:
        """See Channel."""
        return self._channel.acknowledged_bytes

    def statistics(self) -> Mapping[str, Statistic]:
        """See Channel."""
        return self._channel.statistics()
