"""Packet protection: every packet is sealed before it is sent, and opened before anything believes it.

The header stays in the clear and is authenticated; the rest is encrypted, and a tag follows. Each direction has its own
keys and replaces them on its own: the key-phase bit of a packet says which of two generations has sealed it. The sender
updates after a number of packets, and only once a packet of the current generation was acknowledged, so a receiver
never needs more than the keys before, the current keys, and the next. A receiver installs the next keys only after a
packet has opened with them.

What fails to open is counted for as long as the connection lasts, whatever its keys: each attempt is a guess at a tag.
After as many as the AEAD allows, nothing is opened any more, and the connection ends.

Keys and ciphers are handed in; this module adds nothing to them but the nonce and the choice of the generation. The
packets of a batch share one numpy operation for the nonces. What remains for each packet is one call of the cipher
between buffers whose slices are kept.

Read: RFC 9001 sections 5.3 (nonce, associated data), 6 (key update) and 6.6 (limits on the use of keys).
"""

from collections import deque
from typing import Final, Protocol, TypeAlias

import numpy as np
from cryptography.exceptions import InvalidTag
from numpy.typing import NDArray

from toolkit.errors import ProtocolError
from toolkit.rudp import wire
from toolkit.rudp.protection import ForgeryLimitError, StreamMemory

KEY_UPDATE_PACKETS: Final = 1 << 21
"""Packets after which a sender updates its keys, well before the limit of AES-GCM."""
KEY_LIMIT_PACKETS: Final = 1 << 23
"""Maximum number of packets that one key seals: the confidentiality limit of AES-GCM (RFC 9001 section 6.6)."""
FORGERY_LIMIT_PACKETS: Final = 1 << 36
"""How many packets may fail to open: the integrity limit of ChaCha20-Poly1305, the lower one of the AEADs (RFC 9001
section 6.6)."""
NONCE_BYTES: Final = 12
_PHASE: Final = int(wire.Flags.KEY_PHASE)
_STREAM_TYPES: Final = frozenset((wire.PacketType.DATA, wire.PacketType.MESSAGE))
_Bytes: TypeAlias = bytes | bytearray | memoryview
_NONCE: Final = np.dtype([("head", "V4"), ("number", ">i8")])


class Aead(Protocol):
    """An AEAD cipher with one key, as `cryptography` provides them; the tag follows the ciphertext."""

    def encrypt_into(self, nonce: _Bytes, data: _Bytes, associated_data: _Bytes | None, buf: memoryview, /) -> int:
        """Seal `data` into `buf`, which is 16 bytes longer."""

    def decrypt_into(self, nonce: _Bytes, data: _Bytes, associated_data: _Bytes | None, buf: memoryview, /) -> int:
        """Open `data` into `buf`, which is 16 bytes shorter. Raises InvalidTag."""


class PacketKeys(Protocol):
    """One generation of the keys of one direction."""

    @property
    def aead(self) -> Aead:
        """The cipher with its key."""

    @property
    def iv(self) -> bytes:
        """NONCE_BYTES bytes; the nonce is their exclusive or with the packet number."""

    def next(self) -> "PacketKeys":
        """The keys of the next generation."""


class AeadProtection:
    """Packets sealed by an AEAD. Implements `PacketProtection`."""

    def __init__(
        self,
        send: PacketKeys,
        receive: PacketKeys,
        update_after: int = KEY_UPDATE_PACKETS,
        key_limit: int = KEY_LIMIT_PACKETS,
        forgery_limit: int = FORGERY_LIMIT_PACKETS,
    ) -> None:
        """This side updates its keys after `update_after` packets; one key seals at most `key_limit`.

        At most `forgery_limit` packets may fail to open, with all keys together.
        """
        self.tag_bytes = wire.TAG_BYTES
        self.stream_overhead_bytes = wire.HEADER_BYTES + wire.TAG_BYTES
        self.phase_flags = 0
        self._update_after = update_after
        self._key_limit = key_limit
        self._forgery_limit = forgery_limit
        self._forgeries = 0
        self._first_number = 0  # of the current keys for sending
        self._send_keys = send
        self._send = _Generation(send)
        self._receive = _ReceiveKeys(receive)
        self._send_nonces = _Nonces()
        self._receive_nonces = _Nonces()
        self._headers = np.zeros((0, wire.HEADER_BYTES), np.uint8)
        self._header_views: list[memoryview] = []
        self._payload_sizes: tuple[int, int] = (0, 0)
        self._payload_views: list[memoryview] = []

    # Sealing

    def update_keys(self, next_number: int, largest_acked: int) -> bool:
        if next_number - self._first_number < self._update_after:
            return False
        if largest_acked < self._first_number:
            return True
        self._send_keys = self._send_keys.next()
        self._send = _Generation(self._send_keys)
        self._first_number = next_number
        self.phase_flags ^= _PHASE
        return False

    def is_exhausted(self, next_number: int) -> bool:
        return next_number - self._first_number >= self._key_limit

    def seal_stream(
        self, memory: StreamMemory, numbers: NDArray[np.int64], payload_bytes: int, total_bytes: int
    ) -> int:
        count, full = len(numbers), total_bytes // payload_bytes
        encrypt = self._send.aead.encrypt_into
        if full:
            headers, payloads, bodies = memory.slices(full, payload_bytes, self.tag_bytes)
            nonces = self._send_nonces.of(self._send, numbers[:full])
            # The fastest way to exhaust an iterator. `map` ends with the shortest of its arguments.
            deque(map(encrypt, nonces, payloads[:full], headers, bodies), maxlen=0)
        end = full * (payload_bytes + self.stream_overhead_bytes)
        if full < count:
            body = end + wire.HEADER_BYTES
            rest = memory.payload.data[full * payload_bytes : total_bytes]
            packets = memory.packets.data
            header = packets[end:body]
            end = body + len(rest) + self.tag_bytes
            encrypt(self._send.nonce(int(numbers[full])), rest, header, packets[body:end])
        return end

    def seal(self, packet: bytes) -> bytes:
        sealed = bytearray(packet)
        sealed[1] |= self.phase_flags
        header_bytes = _header_bytes(packet)
        *_, number = wire.COMMON.unpack_untrusted(packet)
        body = packet[header_bytes : len(packet) - self.tag_bytes]
        header = bytes(sealed[:header_bytes])
        self._send.aead.encrypt_into(self._send.nonce(number), body, header, memoryview(sealed)[header_bytes:])
        return bytes(sealed)

    # Opening

    def open_stream(
        self, packets: NDArray[np.uint8], numbers: NDArray[np.int64], buffer: NDArray[np.uint8], start: int
    ) -> int:
        self._check_forgeries()
        keys, number, phase_flags = self._receive, int(numbers[0]), int(packets[0, 1]) & _PHASE
        generation = keys.generation(phase_flags, number)
        if generation is None:
            return 0
        if phase_flags != keys.phase_flags:
            packets = packets[:1]  # around a key update, packets are opened one by one
        opened = self._open_rows(generation, packets, numbers, buffer, start)
        if opened:
            keys.on_opened(generation, number)
        else:  # a later packet that fails is tried again, as the first one
            self._forgeries += 1
        return opened

    def _check_forgeries(self) -> None:
        if self._forgeries >= self._forgery_limit:
            raise ForgeryLimitError(f"{self._forgeries} forged or damaged packets have arrived, as many as is safe")

    def _open_rows(
        self,
        generation: "_Generation",
        packets: NDArray[np.uint8],
        numbers: NDArray[np.int64],
        buffer: NDArray[np.uint8],
        start: int,
    ) -> int:
        count, segment = packets.shape
        if len(self._headers) < count:
            self._headers = np.zeros((max(2 * len(self._headers), count), wire.HEADER_BYTES), np.uint8)
            self._header_views = [row.data for row in self._headers]
        self._headers[:count] = packets[:, : wire.HEADER_BYTES]
        payloads = self._payload_slices(buffer, start, count, segment - self.stream_overhead_bytes)
        view = packets.reshape(-1).data
        bodies = [view[i : i + segment - wire.HEADER_BYTES] for i in range(wire.HEADER_BYTES, count * segment, segment)]
        nonces = self._receive_nonces.of(generation, numbers[:count])
        opened = 0
        try:
            for _ in map(generation.aead.decrypt_into, nonces, bodies, self._header_views, payloads):
                opened += 1
        except InvalidTag:
            pass
        return opened

    def _payload_slices(
        self, buffer: NDArray[np.uint8], start: int, count: int, payload_bytes: int
    ) -> list[memoryview]:
        """Where to put the payload of each packet. The slices from the beginning of the buffer are kept."""
        view = buffer.data
        if start:
            end = start + count * payload_bytes
            return [view[i : i + payload_bytes] for i in range(start, end, payload_bytes)]
        if self._payload_sizes != (id(buffer), payload_bytes):
            self._payload_sizes, self._payload_views = (id(buffer), payload_bytes), []
        for i in range(len(self._payload_views), count):
            self._payload_views.append(view[i * payload_bytes : (i + 1) * payload_bytes])
        return self._payload_views

    def open_untrusted(self, packet: memoryview) -> memoryview:
        self._check_forgeries()
        _, flags, _, number = wire.COMMON.unpack_untrusted(packet)
        header_bytes = _header_bytes(packet)
        if len(packet) < header_bytes + self.tag_bytes:
            raise ProtocolError("packet without an authentication tag")
        generation = self._receive.generation(flags & _PHASE, number)
        if generation is None:
            raise ProtocolError("packet of a generation of keys that is gone")
        opened = memoryview(bytearray(len(packet) - self.tag_bytes))
        header = bytes(packet[:header_bytes])
        opened[:header_bytes] = header
        try:
            generation.aead.decrypt_into(generation.nonce(number), packet[header_bytes:], header, opened[header_bytes:])
        except InvalidTag:
            self._forgeries += 1
            raise ProtocolError("packet that is forged or damaged") from None
        self._receive.on_opened(generation, number)
        return opened


def _header_bytes(packet: bytes | memoryview) -> int:
    """The length of the part of a packet that stays in the clear."""
    return wire.HEADER_BYTES if packet[0] in _STREAM_TYPES else wire.COMMON.size


class _Generation:
    """The keys of one generation, ready for use.

    iv_head, iv_number: the first four bytes of the IV, and the others as a number
    """

    def __init__(self, keys: PacketKeys) -> None:
        self.aead = keys.aead
        self.iv_head = keys.iv[:4]
        self.iv_number = int.from_bytes(keys.iv[4:], "big", signed=True)
        self._iv = int.from_bytes(keys.iv, "big")

    def nonce(self, number: int) -> bytes:
        """The nonce of one packet (RFC 9001 section 5.3)."""
        return (self._iv ^ number).to_bytes(NONCE_BYTES, "big")


class _Nonces:
    """The nonces of a batch, in memory that is used again."""

    def __init__(self) -> None:
        self._array = np.zeros(0, _NONCE)
        self._numbers = self._array["number"]
        self._views: list[memoryview] = []
        self._generation: _Generation | None = None

    def of(self, generation: _Generation, numbers: NDArray[np.int64]) -> list[memoryview]:
        """The nonces of these packet numbers, perhaps followed by others; valid until the next call."""
        count = len(numbers)
        if len(self._array) < count:
            self._array = np.zeros(max(2 * len(self._array), count), _NONCE)
            view = self._array.view(np.uint8).data
            self._views = [view[i : i + NONCE_BYTES] for i in range(0, len(view), NONCE_BYTES)]
            self._numbers = self._array["number"]
            self._generation = None
        if self._generation is not generation:
            self._generation = generation
            self._array["head"] = np.void(generation.iv_head)
        self._numbers[:count] = numbers ^ generation.iv_number  # faster than `out=` with the other byte order
        return self._views


class _ReceiveKeys:
    """The generations of keys with which the peer's packets may be sealed.

    phase_flags: the key-phase bit of the current generation
    """

    def __init__(self, keys: PacketKeys) -> None:
        self.phase_flags = 0
        self._keys = keys
        self._next_keys: PacketKeys | None = None
        self._previous: _Generation | None = None
        self._current = _Generation(keys)
        self._next: _Generation | None = None
        self._lowest = 0  # packet number of the current generation

    def generation(self, phase_flags: int, number: int) -> _Generation | None:
        """The keys for a packet with this key-phase bit and number; None if they are gone.

        The keys before and after the current ones have the same bit. The packets of an earlier generation have lower
        numbers than all of the current one (RFC 9001 section 6.5).
        """
        if phase_flags == self.phase_flags:
            return self._current
        if number < self._lowest:
            return self._previous
        if self._next is None:  # derived once, however many packets claim to need them
            self._next_keys = self._keys.next()
            self._next = _Generation(self._next_keys)
        return self._next

    def on_opened(self, generation: _Generation, number: int) -> None:
        """A packet has opened with these keys: if they are the next ones, the peer has updated."""
        if generation is self._current:
            self._lowest = min(self._lowest, number)
        elif generation is self._next and self._next_keys is not None:
            self._keys, self._next_keys = self._next_keys, None
            self._previous, self._current, self._next = self._current, generation, None
            self._lowest = number
            self.phase_flags ^= _PHASE
