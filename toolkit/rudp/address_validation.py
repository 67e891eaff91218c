"""Stateless address validation: a token that only a client that receives at its address can return.

The server keeps no state for an address until the client has returned the token. The token is a time and a keyed
hash of that time, the address and the client's connection id. It is valid for a few seconds, and only for this
address and id.

Read: RFC 9000 section 8.1 (address validation); RFC 4987 section 3.6 (SYN cookies, the same idea).
"""

import hashlib
import hmac
import struct
from typing import Final

TOKEN_LIFETIME_NS: Final = 10_000_000_000
_TIME: Final = struct.Struct(">Q")
_MAC_BYTES: Final = 16


class AddressValidator:
    """Makes and checks tokens. Times come from one monotonic clock."""

    def __init__(self, key: bytes) -> None:
        """`key` is 32 random bytes, which a listener keeps for its lifetime."""
        self._key = key

    def make_token(self, address: bytes, client_id: int, now_ns: int) -> bytes:
        """Return the token for a client at `address`, any bytes that identify the address."""
        time = _TIME.pack(now_ns)
        return time + self._mac(time, address, client_id)

    def is_valid_untrusted(self, token: bytes, address: bytes, client_id: int, now_ns: int) -> bool:
        """Whether `token` was made here for this address and id, at most `TOKEN_LIFETIME_NS` ago."""
        if len(token) != _TIME.size + _MAC_BYTES:
            return False
        time = token[: _TIME.size]
        age_ns = now_ns - _TIME.unpack(time)[0]
        is_authentic = hmac.compare_digest(token[_TIME.size :], self._mac(time, address, client_id))
        return is_authentic and 0 <= age_ns <= TOKEN_LIFETIME_NS

    def _mac(self, time: bytes, address: bytes, client_id: int) -> bytes:
        message = time + client_id.to_bytes(8, "big") + address
        return hmac.new(self._key, message, hashlib.sha256).digest()[:_MAC_BYTES]
