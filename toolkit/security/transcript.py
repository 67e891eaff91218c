"""What binds a handshake together: a prologue of everything sent in the clear, and keys that depend on all of it."""

import hashlib

from toolkit.parameters import encode_parameters
from toolkit.security.keys import AeadName, SessionKeys, TrafficKeys, expand_label
from toolkit.security.noise import HandshakeState

_PROLOGUE_LABEL = b"nettool handshake 2"


def digest(*parts: bytes) -> bytes:
    """Return a hash of `parts` and of where each ends."""
    return hashlib.sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()


def noise_prologue(transport_prologue: bytes, clear_fields: dict[int, bytes], answer: bytes = b"") -> bytes:
    """Return what binds a Noise handshake to the rest of M1 (`clear_fields`) and to the SPAKE2 `answer` before it."""
    return digest(_PROLOGUE_LABEL, transport_prologue, encode_parameters(clear_fields), answer)


def session_keys(noise: HandshakeState, aead_name: AeadName) -> SessionKeys:
    """Return the keys of a finished handshake; the hash of its transcript goes into each of them."""
    client, server, exporter = noise.split(3)
    transcript = noise.handshake_hash
    return SessionKeys(
        TrafficKeys(aead_name, expand_label(client, "client traffic", transcript)),
        TrafficKeys(aead_name, expand_label(server, "server traffic", transcript)),
        expand_label(exporter, "exporter", transcript),
    )
