"""Takes the fields of a message apart, and raises ProtocolError where it is not well-formed."""

import struct
from typing import Any

from toolkit.errors import ProtocolError

MAX_TEXT_BYTES = 200


class MessageReader:
    """A message that is read from its front; whatever it cannot give raises ProtocolError."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next fields, as `layout` has them."""
        try:
            values = layout.unpack_from(self._data, self._at)
        except struct.error as error:
            raise ProtocolError("a message of the peer is too short") from error
        self._at += layout.size
        return values

    def octets(self, length: int) -> bytes:
        """The next `length` bytes."""
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise ProtocolError("a message of the peer is too short")
        self._at += length
        return taken

    def text(self, length: int) -> str:
        """The next `length` bytes as UTF-8."""
        if length > MAX_TEXT_BYTES:
            raise ProtocolError("a text of the peer is too long")
        try:
            return self.octets(length).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("a text of the peer is no UTF-8") from error

    def finish(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            raise ProtocolError("a message of the peer is too long")


def encode_text(text: str) -> bytes:
    """UTF-8 of at most MAX_TEXT_BYTES, cut where a character ends."""
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore").encode()
