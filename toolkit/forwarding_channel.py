"""A channel that passes its calls on: the base of those that watch or change a few calls of another one."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from toolkit.channel import Address, Channel, Extent, ExtentSink, ExtentSource, Statistic
from toolkit.security.admission import Admitted


class ForwardingChannel:
    """See `toolkit.channel.Channel`. Every call goes to the channel that is given."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def peer(self) -> Address:
        """See Channel."""
        return self._channel.peer

    @property
    def admitted(self) -> Admitted:
        """See Channel."""
        return self._channel.admitted

    def send_message(self, message: bytes, has_more: bool = False) -> None:
        """See Channel."""
        self._channel.send_message(message, has_more)

    def send_extent(self, extent: Extent, source: ExtentSource) -> None:
        """See Channel."""
        self._channel.send_extent(extent, source)

    def receive(
        self, sink: ExtentSink | None = None, timeout_s: float | None = None, wake: int | None = None
    ) -> bytes | None:
        """See Channel."""
        return self._channel.receive(sink, timeout_s, wake)

    def file_access(self) -> AbstractContextManager[object]:
        """See Channel."""
        return self._channel.file_access()

    def check_while_waiting(self, check: Callable[[], None]) -> None:
        """See Channel."""
        self._channel.check_while_waiting(check)

    def flush(self) -> None:
        """See Channel."""
        self._channel.flush()

    def close(self, linger_s: float | None = None) -> None:
        """See Channel."""
        self._channel.close(linger_s)

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
