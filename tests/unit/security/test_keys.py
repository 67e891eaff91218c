"""Traffic keys: derivation, key updates and further connections."""

import hmac
import itertools

import pytest
from cryptography.exceptions import InvalidTag

from toolkit.security.keys import AeadName, SessionKeys, TrafficKeys, expand_label, make_aead

SECRET = bytes(range(32))


def keys(aead_name: AeadName = AeadName.AES_256_GCM) -> TrafficKeys:
    return TrafficKeys(aead_name, SECRET)


def test_a_derivation_is_one_block_of_hkdf_expand_with_a_label() -> None:
    info = b"\x00\x20" + b"\x0cnettool name" + b"\x03ctx"
    expected = hmac.digest(SECRET, info + b"\x01", "sha256")
    assert expand_label(SECRET, "name", b"ctx") == expected
    assert expand_label(SECRET, "name", b"ctx", 12) != expected[:12]  # the length is part of the label


def test_everything_derived_from_a_secret_differs() -> None:
    first = keys()
    derived = [first.secret, first.key, first.next().secret, first.derive(b"1").secret, first.derive(b"2").secret]
    derived += [first.next().key, first.next().next().secret, first.derive(b"").secret]
    assert all(a != b for a, b in itertools.combinations(derived, 2))
    assert first.iv != first.next().iv


def test_key_updates_count_their_generation_and_keep_the_aead() -> None:
    third = keys(AeadName.CHACHA20_POLY1305).next().next()
    assert third.generation == 2
    assert third.aead_name is AeadName.CHACHA20_POLY1305
    assert third.derive(b"other").generation == 0


def test_a_nonce_is_the_iv_xor_the_number() -> None:
    first = keys()
    assert first.nonce(0) == first.iv
    assert first.nonce(1)[:11] == first.iv[:11]
    assert first.nonce(1)[11] == first.iv[11] ^ 1
    assert first.nonce((1 << 64) - 1)[:4] == first.iv[:4]


@pytest.mark.parametrize("name", list(AeadName))
def test_an_aead_seals_in_place_and_opens_nothing_that_was_changed(name: AeadName) -> None:
    aead = keys(name).aead
    nonce = keys(name).nonce(7)
    sealed = bytearray(5 + 16)
    assert aead.encrypt_into(nonce, b"hello", b"header", sealed) == 21
    assert sealed == aead.encrypt(nonce, b"hello", b"header")
    opened = bytearray(5)
    assert aead.decrypt_into(nonce, sealed, b"header", opened) == 5
    assert opened == b"hello"
    for wrong_nonce, wrong_header, position in [(8, b"header", None), (7, b"HEADER", None), (7, b"header", 20)]:
        changed = bytearray(sealed)
        if position is not None:
            changed[position] ^= 1
        with pytest.raises(InvalidTag):
            aead.decrypt(keys(name).nonce(wrong_nonce), bytes(changed), wrong_header)


def test_a_key_of_another_length_is_rejected() -> None:
    with pytest.raises(ValueError, match="32 bytes, not 16"):
        make_aead(AeadName.AES_256_GCM, bytes(16))


def test_a_session_derives_other_keys_for_each_connection_and_each_purpose() -> None:
    session = SessionKeys(keys(), keys().next(), bytes(32))
    other = session.derive(b"1")
    assert len({session.client.secret, session.server.secret, other.client.secret, other.server.secret}) == 4
    assert session.export("join", b"1") != session.export("join", b"2") != other.export("join", b"2")
    assert len(session.export("join", length=48)) == 48


def test_secrets_do_not_reach_a_traceback_or_a_log() -> None:
    session = SessionKeys(keys(), keys(), SECRET)
    assert repr(SECRET)[2:-1] not in repr(session)
    assert SECRET.hex() not in repr(session)
