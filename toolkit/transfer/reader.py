"""Parses the fields of a received message; anything malformed raises ProtocolError."""

import struct
from typing import Any

from toolkit.errors import ProtocolError
from toolkit.parameters import decode_parameters_untrusted

MAX_TEXT_BYTES = 200


class MessageReader:
    """Reads a message field by field, from its front."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self._data = data
        self._offset = offset

    @property
    def is_at_end(self) -> bool:
        """Whether nothing is left to read."""
        return self._offset == len(self._data)

    def fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next fields, unpacked by `layout`. Raises ProtocolError."""
        try:
            values = layout.unpack_from(self._data, self._offset)
        except struct.error as error:
            raise ProtocolError("the peer sent a truncated message") from error
        self._offset += layout.size
        return values

    def octets(self, length: int) -> bytes:
        """The next `length` bytes. Raises ProtocolError."""
        octets = self._data[self._offset : self._offset + length]
        if len(octets) != length:
            raise ProtocolError("the peer sent a truncated message")
        self._offset += length
        return octets

    def text(self, length: int) -> str:
        """The next `length` bytes, decoded as UTF-8. Raises ProtocolError."""
        if length > MAX_TEXT_BYTES:
            raise ProtocolError(f"the peer sent a text of {length} bytes (at most {MAX_TEXT_BYTES} are allowed)")
        try:
            return self.octets(length).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError("the peer sent a text that is not valid UTF-8") from error

    def parameters(self) -> dict[int, bytes]:
        """The parameters that the rest of the message holds (toolkit/parameters.py). Raises ProtocolError."""
        parameters = decode_parameters_untrusted(self._data[self._offset :])
        self._offset = len(self._data)
        return parameters

    def finish(self) -> None:
        """Check that the message ends here. Raises ProtocolError."""
        if not self.is_at_end:
            raise ProtocolError("the peer sent a message with trailing bytes")


def encode_text(text: str) -> bytes:
    """`text` as UTF-8, cut at a character boundary to MAX_TEXT_BYTES at most."""
    return text.encode("utf-8", "replace")[:MAX_TEXT_BYTES].decode("utf-8", "ignore").encode()
