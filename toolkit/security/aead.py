"""Which AEAD protects a session: the one that is faster on the slower of the two machines.

With instructions for AES, AES-256-GCM is several times faster; without them, ChaCha20-Poly1305 is. Each side measures
both, and the responder compares.
"""

import time
from collections.abc import Mapping
from functools import cache

from toolkit.errors import ProtocolError
from toolkit.security.keys import IV_BYTES, KEY_BYTES, TAG_BYTES, AeadName, make_aead

AEAD_IDS = {AeadName.AES_256_GCM: 1, AeadName.CHACHA20_POLY1305: 2}
MEASURED_BYTES = 1400

_NAMES = {number: name for name, number in AEAD_IDS.items()}
_ROUNDS, _PACKETS_A_ROUND = 8, 32
_MAX_SPEED_MBPS = (1 << 32) - 1
_ENTRY_BYTES = 5

Speeds = Mapping[AeadName, int]
"""Mbit/s at MEASURED_BYTES bytes a packet."""


@cache
def measured_speeds() -> Speeds:
    """Return this machine's speeds. The first call in a process measures them, in about a millisecond."""
    return {name: _measure_mbps(name) for name in AeadName}


def choose_aead(ours: Speeds, theirs: Speeds) -> AeadName:
    """Return the AEAD that both know and whose slower side is fastest. Raises ProtocolError if there is none."""
    common = [name for name in AeadName if name in ours and name in theirs]
    if not common:
        raise ProtocolError("the peer knows none of our AEADs")
    return max(common, key=lambda name: min(ours[name], theirs[name]))


def encode_speeds(speeds: Speeds) -> bytes:
    """Return the list of `id u8, Mbit/s u32`."""
    return b"".join(bytes([AEAD_IDS[name]]) + speed.to_bytes(4) for name, speed in speeds.items())


def decode_speeds_untrusted(data: bytes) -> Speeds:
    """Return the speeds of the AEADs that we know. Raises ProtocolError on a length that no list has."""
    if len(data) % _ENTRY_BYTES:
        raise ProtocolError(f"a list of AEADs of {len(data)} bytes")
    entries = [data[at : at + _ENTRY_BYTES] for at in range(0, len(data), _ENTRY_BYTES)]
    return {_NAMES[entry[0]]: int.from_bytes(entry[1:]) for entry in entries if entry[0] in _NAMES}


def decode_aead_untrusted(data: bytes) -> AeadName:
    """Return the AEAD with the id `data`. Raises ProtocolError if it is unknown."""
    name = _NAMES.get(data[0]) if len(data) == 1 else None
    if name is None:
        raise ProtocolError(f"unknown AEAD 0x{data[:8].hex()}")
    return name


def _measure_mbps(name: AeadName) -> int:
    """Return the speed of the fastest of several rounds: the others were disturbed."""
    aead = make_aead(name, bytes(KEY_BYTES))
    text, sealed = bytes(MEASURED_BYTES), bytearray(MEASURED_BYTES + TAG_BYTES)
    best_ns = 1 << 63
    for _ in range(_ROUNDS):
        start_ns = time.perf_counter_ns()
        for number in range(_PACKETS_A_ROUND):
            aead.encrypt_into(number.to_bytes(IV_BYTES), text, None, sealed)
        best_ns = min(best_ns, time.perf_counter_ns() - start_ns)
    return min(_MAX_SPEED_MBPS, 8 * MEASURED_BYTES * _PACKETS_A_ROUND * 1000 // max(1, best_ns))
