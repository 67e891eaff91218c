"""The record layer of an encrypted TCP connection: the frames of `wire` travel in sealed records.

    record:  length u32 (of what follows), ciphertext, tag (16 bytes)

The associated data of a record is its length. Its nonce is the initialization vector of the direction's keys, XORed
with the number of the record under these keys. Both ends count records and replace the keys after RECORDS_PER_KEY of
them; nothing on the wire says so. A record that was changed, cut, repeated, left out or moved does not open, and
nothing of it reaches the caller.

Records are large because AES-GCM is several times faster there than on datagrams. A message of a few bytes makes a
small record at once: nothing waits for more. An empty record is a keep-alive.

Read: RFC 8446 section 5 (the record protocol of TLS 1.3; 5.3 for the nonce, 5.5 for the limits on the use of a key).
"""

import mmap
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag

from toolkit.errors import ProtocolError
from toolkit.security.keys import TAG_BYTES, SessionAead, TrafficKeys

MAX_RECORD_BYTES: Final = (1 << 18) + (1 << 10)
"""The most plaintext that a record may hold: 256 KiB of content or message, and headers of frames."""

RECORDS_PER_KEY: Final = 1 << 16
"""At most 2**30 cipher blocks under one key, of the 2**34.5 that RFC 8446 section 5.5 allows AES-GCM."""

_LENGTH: Final = struct.Struct("!I")
LENGTH_BYTES: Final = _LENGTH.size


class RecordKeys(NamedTuple):
    """The keys of one connection at one of its ends: for what it sends, and for what it receives."""

    outgoing: TrafficKeys
    incoming: TrafficKeys


def decode_record_length_untrusted(data: bytes | bytearray | memoryview) -> int:
    """Return the bytes of ciphertext and tag that follow a record's length field. Raises ProtocolError."""
    length: int = _LENGTH.unpack(data)[0]
    if not TAG_BYTES <= length <= MAX_RECORD_BYTES + TAG_BYTES:
        raise ProtocolError(
            f"the peer announces a record of {length} bytes, not {TAG_BYTES} to {MAX_RECORD_BYTES + TAG_BYTES}"
        )
    return length


def _buffer(size_bytes: int) -> memoryview:
    """Return memory that takes up none before it is used: most connections send and receive much one way only."""
    return memoryview(mmap.mmap(-1, size_bytes))


class _KeySchedule:
    """The keys of one direction, and the number of the next record under them."""

    def __init__(self, keys: TrafficKeys) -> None:
        self._keys = keys
        self._number = 0

    def advance(self) -> tuple[SessionAead, bytes]:
        """Return the cipher and the nonce of the next record."""
        if self._number == RECORDS_PER_KEY:
            self._keys, self._number = self._keys.next(), 0
        nonce = self._keys.nonce(self._number)
        self._number += 1
        return self._keys.aead, nonce


class RecordSealer:
    """Seals what a connection sends.

    plaintext: MAX_RECORD_BYTES to put the content of the next record into
    """

    def __init__(self, keys: TrafficKeys) -> None:
        self.plaintext = _buffer(MAX_RECORD_BYTES)
        self._record = _buffer(LENGTH_BYTES + MAX_RECORD_BYTES + TAG_BYTES)
        self._keys = _KeySchedule(keys)

    def seal(self, length: int) -> memoryview:
        """Return the record of the first `length` bytes of `plaintext`, 1 to MAX_RECORD_BYTES.

        The view is valid until the next call. Every record must be sent, in order.
        """
        record = self._record[: LENGTH_BYTES + length + TAG_BYTES]
        header = _LENGTH.pack(length + TAG_BYTES)
        record[:LENGTH_BYTES] = header
        aead, nonce = self._keys.advance()
        aead.encrypt_into(nonce, self.plaintext[:length], header, record[LENGTH_BYTES:])
        return record

    def keep_alive(self) -> bytes:
        """Return an empty record, to be sent next; `plaintext` may hold the beginning of the one after it."""
        header = _LENGTH.pack(TAG_BYTES)
        aead, nonce = self._keys.advance()
        return header + aead.encrypt(nonce, b"", header)


def seal_once(keys: TrafficKeys, plaintext: bytes) -> bytes:
    """Return the only record of a connection that ends with it."""
    sealer = RecordSealer(keys)
    sealer.plaintext[: len(plaintext)] = plaintext
    return bytes(sealer.seal(len(plaintext)))


class RecordOpener:
    """Opens what a connection receives: to a reader, plaintext that arrives a record at a time.

    receive_into: receives ciphertext, as `socket.recv_into` does on a non-blocking socket
    keep_alives:  how many keep-alives have arrived
    """

    def __init__(self, receive_into: Callable[[memoryview], int], keys: TrafficKeys) -> None:
        self.keep_alives = 0
        self._receive_into = receive_into
        self._keys = _KeySchedule(keys)
        # A record with its length field, and the length field of the record after it: one system call reads them all.
        self._received = _buffer(LENGTH_BYTES + MAX_RECORD_BYTES + TAG_BYTES + LENGTH_BYTES)
        self._filled_bytes = 0
        self._plaintext = _buffer(MAX_RECORD_BYTES)
        self._unread = self._plaintext[:0]
        self._failure: ProtocolError | None = None

    @property
    def has_plaintext(self) -> bool:
        """Whether a record was opened that has not been read to its end."""
        return bool(self._unread)

    @property
    def is_between_records(self) -> bool:
        """Whether every record that has begun to arrive was read to its end."""
        return not self._unread and not self._filled_bytes

    @property
    def unopened_bytes(self) -> int:
        """How much has arrived, in order, of a record that cannot be opened before its end is there."""
        return max(0, self._filled_bytes - LENGTH_BYTES)

    def take_untrusted(self, limit: int) -> memoryview:
        """Return up to `limit` bytes of plaintext, valid until the next call; none at the end of the connection.

        Raises BlockingIOError if no whole record has arrived, or a keep-alive, OSError if the connection failed, and
        ProtocolError for a record that does not open.
        """
        if not self._unread:
            if not self._open_next():
                return self._unread
            if not self._unread:
                self.keep_alives += 1
                raise BlockingIOError
        taken = self._unread[:limit]
        self._unread = self._unread[limit:]
        return taken

    def receive_into_untrusted(self, target: memoryview) -> int:
        """As `socket.recv_into`, for plaintext; raises as `take_untrusted` does."""
        taken = self.take_untrusted(len(target))
        target[: len(taken)] = taken
        return len(taken)

    def _open_next(self) -> bool:
        """Receive and open a record; False at the end of the connection."""
        if self._failure is not None:
            raise self._failure
        if not self._fill(LENGTH_BYTES, LENGTH_BYTES):
            return False
        length = decode_record_length_untrusted(self._received[:LENGTH_BYTES])
        end = LENGTH_BYTES + length
        if not self._fill(end, end + LENGTH_BYTES):
            return False
        plaintext = self._plaintext[: length - TAG_BYTES]
        aead, nonce = self._keys.advance()
        try:
            aead.decrypt_into(nonce, self._received[LENGTH_BYTES:end], self._received[:LENGTH_BYTES], plaintext)
        except InvalidTag as error:
            self._failure = ProtocolError(
                "what the peer sent was changed on the way; check the network, and send again"
            )
            raise self._failure from error
        left_bytes = self._filled_bytes - end
        self._received[:left_bytes] = self._received[end : self._filled_bytes]
        self._filled_bytes = left_bytes
        self._unread = plaintext
        return True

    def _fill(self, needed: int, wanted: int) -> bool:
        """Receive up to `wanted` bytes until `needed` are there; False at the end of the connection."""
        while self._filled_bytes < needed:
            count = self._receive_into(self._received[self._filled_bytes : wanted])
            if not count:
                return False
            self._filled_bytes += count
        return True
