"""Stateless address validation: a token that only a client that receives at its address can return.

The server keeps no state for an address until the client has returned a token. There are two kinds:

    retry token    in RETRY; valid for one address, port and client id, for a few seconds
    return token   in ACCEPT, for the client's next connection; valid for one address without its port, for a day

A token is its kind, the time at which it was made, the mark of the address (`address_mark`), and a keyed hash of these
and of what it is valid for. It says nothing about who the client is: that is for the key exchange.

Read: RFC 9000 section 8.1 (address validation; a return token is a NEW_TOKEN); RFC 4987 section 3.6 (SYN cookies).
"""

import hashlib
import hmac
import struct
from typing import Final

from toolkit.rudp.address_mark import KEY_BYTES, AddressMarks
from toolkit.rudp.handshake_packets import MAX_VERSIONS_BYTES, PARAMETERS, Parameter, has_token_untrusted

RETRY_TOKEN_LIFETIME_NS: Final = 30_000_000_000
"""With a code, the last INITIAL arrives two round trips after the token was made, which may take 6 s each."""
RETURN_TOKEN_LIFETIME_NS: Final = 24 * 3600 * 1_000_000_000
_HEAD: Final = struct.Struct(">BQI")  # kind, time, mark
_PORT_AND_ID: Final = struct.Struct(">HQ")
_RETRY, _RETURN = 0, 1
_MAC_BYTES: Final = 12  # guesses can only be tried at the server, and a right one saves its maker a round trip
MARK_OFFSET: Final = 9
"""Where a token has the mark of its address, 4 bytes in network order."""
_PARAMETER: Final = struct.Struct(">HH")  # id and length
_MARKED: Final = struct.Struct(f">H2x{MARK_OFFSET}xI")  # the id of a TOKEN, and the mark inside
TOKEN_BYTES: Final = _HEAD.size + _MAC_BYTES


class AddressValidator:
    """Makes and checks tokens. Times come from one monotonic clock. Hosts are packed IP addresses.

    marks: the marks that tokens hold
    """

    def __init__(self, key: bytes) -> None:
        """`key` is 32 random bytes, which a listener keeps for its lifetime."""
        self._hash = hashlib.blake2b(digest_size=_MAC_BYTES, key=key)
        self.marks = AddressMarks(hashlib.blake2b(b"mark", digest_size=KEY_BYTES, key=key).digest())

    def retry_token(self, host: bytes, port: int, client_id: int, now_ns: int, mark: int | None = None) -> bytes:
        """Return the token for a client at this address that uses this id. mark: that of the host, if it is known"""
        mark = self.marks.of(host) if mark is None else mark
        return self._seal(_HEAD.pack(_RETRY, now_ns, mark), _PORT_AND_ID.pack(port, client_id) + host)

    def return_token(self, host: bytes, now_ns: int) -> bytes:
        """Return the token for the next connection from this host."""
        return self._seal(_HEAD.pack(_RETURN, now_ns, self.marks.of(host)), host)

    def is_valid_untrusted(self, token: bytes, host: bytes, port: int, client_id: int, now_ns: int) -> bool:
        """Whether `token` was made here for this client, not too long ago."""
        if len(token) != TOKEN_BYTES:
            return False
        kind, time_ns, _ = _HEAD.unpack_from(token)
        if kind == _RETRY:
            identity, lifetime_ns = _PORT_AND_ID.pack(port, client_id) + host, RETRY_TOKEN_LIFETIME_NS
        else:
            identity, lifetime_ns = host, RETURN_TOKEN_LIFETIME_NS
        expected = self._seal(token[: _HEAD.size], identity)
        return hmac.compare_digest(token, expected) and 0 <= now_ns - time_ns <= lifetime_ns

    def _seal(self, head: bytes, identity: bytes) -> bytes:
        keyed = self._hash.copy()
        keyed.update(head + identity)  # `head` has one size, and so has all but the host
        return head + keyed.digest()


def token_mark_untrusted(datagram: bytes | memoryview) -> int | None:
    """Return the mark in the token of an INITIAL (`address_mark`); None if there is no token right after VERSIONS.

    Clients put it there. Whether it is long enough makes no difference, as for the packet filter of a flooded listener,
    which reads the mark as well: both must agree.
    """
    if len(datagram) < PARAMETERS.size + 2 * _PARAMETER.size or not has_token_untrusted(datagram):
        return None
    identifier, length = _PARAMETER.unpack_from(datagram, PARAMETERS.size)
    at = PARAMETERS.size + _PARAMETER.size + length
    if identifier != Parameter.VERSIONS or length > MAX_VERSIONS_BYTES or len(datagram) < at + _MARKED.size:
        return None
    identifier, mark = _MARKED.unpack_from(datagram, at)
    return mark if identifier == Parameter.TOKEN else None
