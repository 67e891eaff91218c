"""Senders that come back after their connection was lost, as a receiver meets them."""

from enum import Enum, auto

from toolkit.channel import Channel
from toolkit.errors import ProtocolError
from toolkit.security.admission import Method
from toolkit.security.reconnections import Reconnections, key_id


class Whereabouts(Enum):
    """What a receiver knows of a sender whose session has ended."""

    GONE = auto()  # it does not come back
    AWAITED = auto()
    BACK = auto()  # a newer session continues this one, or has done so


class ReturningSender:
    """The sender of one session: whether it may come back, and by what."""

    def __init__(self, channel: Channel, reconnections: Reconnections) -> None:
        """The session on this channel starts. It continues another if a reconnection key has admitted its sender."""
        self._channel = channel
        self._reconnections = reconnections
        self._comes_back = self._has_begun = False
        self._session: tuple[bytes, int] | None = None  # the key_id and the number, if the receiver keeps the key
        admitted = channel.admitted
        if admitted.method is Method.RECONNECTION:
            self._session = admitted.key_id, admitted.number
            reconnections.start(*self._session)

    def on_begin(self, key: bytes | None) -> None:
        """The session begins; its sender has given this reconnection key, or None if it does not come back.

        Only a sender with a code needs the key: others get in as before. It is kept only if nobody else has seen it.
        Raises ProtocolError if a reconnection key has admitted the sender, and it is not this one, or has ended, or if
        the sender has come back since: the session must not take the files of the newer one.
        """
        method = self._channel.admitted.method
        is_secret = key is not None and self._channel.statistics()["encryption"] != "none"
        if self._session is not None:
            if key is None or not is_secret or key_id(key) != self._session[0]:
                raise ProtocolError("the sender came back and continues no session")
            if not self._reconnections.is_newest(*self._session):
                raise ProtocolError("the session has ended, or its sender has come back since")
        elif method is not Method.CODE:
            self._comes_back = key is not None
        elif key is not None and is_secret and (number := self._reconnections.add(key)) is not None:
            self._session = key_id(key), number
        self._has_begun = True

    def end(self, *, is_lost: bool) -> Whereabouts:
        """The session has ended, because its connection was lost or otherwise. Only one that has begun ends its key."""
        if self._session is None:
            return Whereabouts.AWAITED if is_lost and self._comes_back else Whereabouts.GONE
        ends_key = self._has_begun and not is_lost
        is_newest = (self._reconnections.end if ends_key else self._reconnections.lose)(*self._session)
        if not is_newest:
            return Whereabouts.BACK
        return Whereabouts.AWAITED if is_lost else Whereabouts.GONE
