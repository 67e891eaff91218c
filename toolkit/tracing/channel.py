"""A channel that explains the calls of a session: what is said before the calls that say it."""

from collections.abc import Callable

from toolkit.channel import Channel, Extent, ExtentSink, ExtentSource
from toolkit.forwarding_channel import ForwardingChannel
from toolkit.tracing.call import CallTrace
from toolkit.tracing.meaning import describe_message

Describe = Callable[[bytes, bool], str]


class ExplainedChannel(ForwardingChannel):
    """A Channel that passes every call on to `channel`, and remarks in `trace` what the session is doing.

    describe: says in a line what a message is about, and whether it is sent; "" for one that explains nothing
    """

    def __init__(self, channel: Channel, trace: CallTrace, describe: Describe = describe_message) -> None:
        super().__init__(channel)
        self._trace, self._describe = trace, describe
        self._file_id = -1  # whose content was sent last

    def send_message(self, message: bytes, has_more: bool = False) -> None:
        """See Channel."""
        if text := self._describe(message, True):
            self._trace.remark(text)
        super().send_message(message, has_more)

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        """See Channel."""
        if extent.file_id != self._file_id:
            self._file_id = extent.file_id
            self._trace.remark(f"now the content of file {extent.file_id + 1}, piece by piece")
        super().send_extent(extent, source)

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """See Channel."""
        message = super().receive(sink, timeout_s, wake)
        if message is not None and (text := self._describe(message, False)):
            self._trace.remark(text)
        return message

    def close(self, linger_s: float | None = None) -> None:
        """See Channel."""
        self._trace.remark("the session is over: the connection is closed")
        super().close(linger_s)
