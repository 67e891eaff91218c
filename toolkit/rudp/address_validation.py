"""Stateless address validation: a token that only who receives at an address can bring back.

The server keeps nothing for an address until it has answered from there (RFC 9000 section 8.1; the idea is that of
SYN cookies, RFC 4987 section 3.6). A token is a time and a keyed hash of the time, the address and the client's id;
it is good for some seconds, and only for that address and id.
"""

import hashlib
import hmac
import struct
from typing import Final

TOKEN_LIFETIME_NS: Final = 10_000_000_000
_TIME: Final = struct.Struct(">Q")
_MAC_BYTES: Final = 16


class AddressValidator:
    """`key` is 32 unguessable bytes that live as long as the listener; times come from one monotonic clock."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, address: bytes, client_id: int, now_ns: int) -> bytes:
        """The token for a client at `address` (any bytes that name it)."""
        time = _TIME.pack(now_ns)
        return time + self._mac(time, address, client_id)

    def is_valid_untrusted(self, token: bytes, address: bytes, client_id: int, now_ns: int) -> bool:
        """Whether `token` was made here, for this address and id, not long ago."""
        if len(token) != _TIME.size + _MAC_BYTES:
            return False
        time = token[: _TIME.size]
        age_ns = now_ns - _TIME.unpack(time)[0]
        genuine = hmac.compare_digest(token[_TIME.size :], self._mac(time, address, client_id))
        return genuine and 0 <= age_ns <= TOKEN_LIFETIME_NS

    def _mac(self, time: bytes, address: bytes, client_id: int) -> bytes:
        message = time + client_id.to_bytes(8, "big") + address
        return hmac.new(self._key, message, hashlib.sha256).digest()[:_MAC_BYTES]
