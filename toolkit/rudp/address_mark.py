"""A mark of an address that only the server can make, and that a packet filter of the kernel can check.

Every token holds the mark of the address that it was given to. During a flood, the filter tells by it which INITIALs
come from addresses that have shown that they receive; what a token proves in full is checked later, by its keyed hash.
A forged mark is right once in 2^32 times, and then leads to that check only.

    mark = first 4 bytes of MD5(key || address), as a little-endian integer

MD5, with a secret key and an input of one length that fills one block, is the best keyed hash whose steps classic BPF
has: additions and rotations of 32 bits, and a state that fits its sixteen words of memory (RFC 6528 makes TCP's initial
sequence numbers in the same way). Nothing but the order in which strangers are served depends on it.

Read: RFC 1321 (MD5); RFC 4987 section 3.6 (SYN cookies).
"""

import hashlib
import struct
from typing import Final

KEY_BYTES: Final = 32
ADDRESS_BYTES: Final = 16
MARK_BYTES: Final = 4
_BIG: Final = struct.Struct(">4I")
_LITTLE: Final = struct.Struct("<4I")


class AddressMarks:
    """The marks of all addresses under one key.

    key: KEY_BYTES, secret
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key of {len(key)} bytes instead of {KEY_BYTES}")
        self.key = key
        self._hash = hashlib.md5(key, usedforsecurity=False)

    def of(self, host: bytes) -> int:
        """Return the mark of a packed IP address of at most ADDRESS_BYTES, 0 to 2^32 - 1.

        A shorter address is preceded by zeros. MD5 reads little-endian words, and a packet filter network order.
        """
        keyed = self._hash.copy()
        keyed.update(_LITTLE.pack(*_BIG.unpack(host.rjust(ADDRESS_BYTES, b"\0"))))
        return int.from_bytes(keyed.digest()[:MARK_BYTES], "little")
