"""Senders that come back after their connection was lost, as a receiver meets them."""

from collections.abc import Callable, Mapping
from enum import Enum, auto

from toolkit.channel import Statistic
from toolkit.errors import ProtocolError
from toolkit.security.admission import Method
from toolkit.security.reconnections import Reconnections

_CODE, _RECONNECTION = (method.name.lower() for method in (Method.CODE, Method.RECONNECTION))


class Whereabouts(Enum):
    """What a receiver knows of a sender whose session has ended."""

    GONE = auto()  # it does not come back
    AWAITED = auto()
    BACK = auto()  # a newer session continues this one, or has done so


class ReturningSender:
    """The sender of one session: whether it may come back, and by what."""

    def __init__(self, statistics: Callable[[], Mapping[str, Statistic]], reconnections: Reconnections) -> None:
        """`statistics` are those of the session's channel."""
        self._statistics = statistics
        self._reconnections = reconnections
        self._key: bytes | None = None  # of a sender that comes back and gets in
        self._number: int | None = None  # among the sessions with this key, if the receiver keeps it

    def on_begin(self, key: bytes | None) -> None:
        """The session begins; its sender has given this reconnection key, or None if it does not come back.

        Only a sender with a code needs the key: others get in as before. It is kept only if nobody else has seen it.
        Raises ProtocolError if a reconnection key has admitted the sender, and it is not this one, or has ended.
        """
        statistics = self._statistics()
        admitted_by = statistics["authentication"]
        if admitted_by in (_CODE, _RECONNECTION):
            if key is not None and statistics["encryption"] != "none":
                self._number = self._reconnections.begin(key, is_new=admitted_by == _CODE)
            if admitted_by == _RECONNECTION and self._number is None:
                raise ProtocolError("the sender came back and continues no session")
        if self._number is not None or admitted_by not in (_CODE, _RECONNECTION):
            self._key = key

    def end(self, *, is_lost: bool) -> Whereabouts:
        """The session has ended, because its connection was lost or otherwise."""
        if self._key is None:
            has_not_begun = self._statistics()["authentication"] == _RECONNECTION
            return Whereabouts.AWAITED if is_lost and has_not_begun else Whereabouts.GONE
        if self._number is None:
            return Whereabouts.AWAITED if is_lost else Whereabouts.GONE
        if is_lost:
            return Whereabouts.AWAITED if self._reconnections.lose(self._key, self._number) else Whereabouts.BACK
        return Whereabouts.GONE if self._reconnections.end(self._key, self._number) else Whereabouts.BACK
