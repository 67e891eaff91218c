"""The Noise machine: published test vectors, the hybrid pattern, and messages that no correct peer sends."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import ProtocolError
from toolkit.security.keys import AeadName
from toolkit.security.noise import (
    KEM_CIPHERTEXT_BYTES,
    KEM_KEY_BYTES,
    NN,
    NN_HFR_PSK0,
    NN_PSK0,
    CipherState,
    HandshakeState,
    NoisePattern,
    NotAuthenticError,
)

VECTORS = json.loads((Path(__file__).parent / "noise_vectors.json").read_text())["vectors"]
PATTERNS = {
    (pattern.protocol_name(cipher)).decode(): (pattern, cipher) for pattern in (NN, NN_PSK0) for cipher in AeadName
}
LOW_ORDER_POINTS = (  # RFC 7748, section 6.1: with these the shared secret is zero
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)


def side_of_vector(vector: dict[str, Any], prefix: str) -> HandshakeState:
    pattern, cipher = PATTERNS[vector["protocol_name"]]
    return HandshakeState(
        pattern,
        is_initiator=prefix == "init",
        prologue=bytes.fromhex(vector[f"{prefix}_prologue"]),
        psk=bytes.fromhex(vector.get(f"{prefix}_psks", ["00" * 32])[0]),
        cipher=cipher,
        random_bytes=lambda _: bytes.fromhex(vector[f"{prefix}_ephemeral"]),
    )


def pair(pattern: NoisePattern = NN_HFR_PSK0, seed: int = 1) -> tuple[HandshakeState, HandshakeState]:
    rng = random.Random(seed)
    psk = rng.randbytes(32) if pattern.has_psk else bytes(32)
    return (
        HandshakeState(pattern, is_initiator=True, prologue=b"p", psk=psk, random_bytes=rng.randbytes),
        HandshakeState(pattern, is_initiator=False, prologue=b"p", psk=psk, random_bytes=rng.randbytes),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["protocol_name"])
def test_published_vectors(vector: dict[str, Any]) -> None:
    cipher = PATTERNS[vector["protocol_name"]][1]
    initiator, responder = side_of_vector(vector, "init"), side_of_vector(vector, "resp")
    exchanged = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
    for (payload, message), (sender, receiver) in zip(
        exchanged[:2], [(initiator, responder), (responder, initiator)], strict=True
    ):
        assert sender.write_message(payload) == message
        assert receiver.read_message_untrusted(message) == payload
    assert initiator.handshake_hash == responder.handshake_hash == bytes.fromhex(vector["handshake_hash"])
    assert initiator.split() == responder.split()
    transport = [CipherState(cipher, key) for key in initiator.split()]
    for (payload, message), state in zip(exchanged[2:], itertools.cycle(transport)):
        assert state.encrypt_with_ad(b"", payload) == message


def test_the_vectors_cover_both_patterns_with_both_ciphers() -> None:
    assert {vector["protocol_name"] for vector in VECTORS} == PATTERNS.keys()


def test_the_hybrid_handshake_takes_three_messages_and_agrees() -> None:
    initiator, responder = pair()
    first = initiator.write_message(b"one")
    assert responder.read_message_untrusted(first) == b"one"
    second = responder.write_message(b"two")
    assert len(second) == 32 + KEM_KEY_BYTES + 16 + 3 + 16
    assert initiator.read_message_untrusted(second) == b"two"
    third = initiator.write_message()
    assert len(third) == KEM_CIPHERTEXT_BYTES + 16 + 16
    assert responder.read_message_untrusted(third) == b""
    assert initiator.is_finished
    assert responder.is_finished
    assert initiator.handshake_hash == responder.handshake_hash
    assert initiator.split(3) == responder.split(3)
    assert initiator.split(3)[:2] == initiator.split()
    assert len(set(initiator.split(3))) == 3


def test_the_keys_depend_on_the_kem_secret() -> None:
    """Two runs with the same X25519 keys, psk and KEM key: only the encapsulated secret differs.

    `cryptography` draws the randomness of an encapsulation itself, so the third message cannot be repeated.
    """
    secrets_of_runs = set()
    for _ in range(2):
        initiator, responder = pair(seed=2)
        responder.read_message_untrusted(initiator.write_message())
        initiator.read_message_untrusted(responder.write_message())
        responder.read_message_untrusted(initiator.write_message())
        secrets_of_runs.add(responder.split())
    assert len(secrets_of_runs) == 2


def test_a_handshake_of_other_psk_or_prologue_does_not_open() -> None:
    message = HandshakeState(NN_HFR_PSK0, is_initiator=True, prologue=b"p", psk=bytes(32)).write_message()
    for prologue, psk in [(b"p", b"\1" * 32), (b"q", bytes(32))]:
        responder = HandshakeState(NN_HFR_PSK0, is_initiator=False, prologue=prologue, psk=psk)
        with pytest.raises(NotAuthenticError):
            responder.read_message_untrusted(message)


def test_a_forged_message_does_not_disturb_the_true_one() -> None:
    initiator, responder = pair()
    first = initiator.write_message(b"one")
    with pytest.raises(ProtocolError):
        responder.read_message_untrusted(first[:-1] + bytes([first[-1] ^ 1]))
    assert responder.read_message_untrusted(first) == b"one"
    second = responder.write_message(b"two")
    for forged in (second[:-1] + bytes([second[-1] ^ 1]), second[:900], bytes(32) + second[32:]):
        with pytest.raises(ProtocolError):
            initiator.read_message_untrusted(forged)
    assert initiator.read_message_untrusted(second) == b"two"
    third = initiator.write_message()
    with pytest.raises(ProtocolError):
        responder.read_message_untrusted(third[:-1] + bytes([third[-1] ^ 1]))
    responder.read_message_untrusted(third)
    assert initiator.split() == responder.split()


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:8])
def test_a_key_of_low_order_is_rejected_by_both_sides(point: bytes) -> None:
    initiator, responder = pair(NN)
    initiator.write_message()
    with pytest.raises(ProtocolError, match="low order"):
        initiator.read_message_untrusted(point)
    responder.read_message_untrusted(point)
    with pytest.raises(ProtocolError, match="low order"):
        responder.write_message()


def test_a_malformed_kem_key_is_rejected_even_if_it_is_authentic() -> None:
    class BadKem:
        """Stands in for the responder's KEM key: every coefficient of its public key is 4,095, above q."""

        def public_key(self) -> "BadKem":
            return self

        def public_bytes_raw(self) -> bytes:
            return b"\xff" * KEM_KEY_BYTES

    from cryptography.hazmat.primitives.asymmetric import mlkem

    initiator, responder = pair()
    responder.read_message_untrusted(initiator.write_message())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlkem.MLKEM768PrivateKey, "from_seed_bytes", lambda _: BadKem())
        second = responder.write_message()
    with pytest.raises(ProtocolError, match="malformed ML-KEM key"):
        initiator.read_message_untrusted(second)


@pytest.mark.parametrize("length", [0, 31, 32, 47])
def test_a_short_message_is_rejected(length: int) -> None:
    _, responder = pair()
    with pytest.raises(ProtocolError):
        responder.read_message_untrusted(bytes(length))


def test_messages_out_of_turn_are_a_mistake_of_the_caller() -> None:
    initiator, responder = pair()
    with pytest.raises(ValueError, match="out of turn"):
        responder.write_message()
    with pytest.raises(ValueError, match="out of turn"):
        initiator.read_message_untrusted(b"")
    with pytest.raises(ValueError, match="not finished"):
        initiator.split()
    with pytest.raises(ValueError, match="32 bytes, not 5"):
        HandshakeState(NN_PSK0, is_initiator=True, psk=b"short")
