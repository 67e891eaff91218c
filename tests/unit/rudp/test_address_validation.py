"""A token is valid for one address and id, for a limited time, and cannot be made without the key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rudp.address_validation import TOKEN_LIFETIME_NS, AddressValidator

ADDRESS = b"('192.0.2.1', 4711)"
CLIENT = 0x1234
NOW = 5_000_000_000_000
validator = AddressValidator(bytes(range(32)))


@given(st.binary(max_size=100), st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 62))
def test_a_returned_token_is_valid(address: bytes, client_id: int, now_ns: int) -> None:
    token = validator.make_token(address, client_id, now_ns)
    assert validator.is_valid_untrusted(token, address, client_id, now_ns)


@pytest.mark.parametrize(
    ("age_ns", "is_valid"), [(0, True), (TOKEN_LIFETIME_NS, True), (TOKEN_LIFETIME_NS + 1, False), (-1, False)]
)
def test_a_token_expires(age_ns: int, is_valid: bool) -> None:
    assert (
        validator.is_valid_untrusted(validator.make_token(ADDRESS, CLIENT, NOW), ADDRESS, CLIENT, NOW + age_ns)
        is is_valid
    )


def test_a_token_is_invalid_for_another_address_id_or_key() -> None:
    token = validator.make_token(ADDRESS, CLIENT, NOW)
    assert not validator.is_valid_untrusted(token, b"('192.0.2.1', 4712)", CLIENT, NOW)
    assert not validator.is_valid_untrusted(token, ADDRESS, CLIENT + 1, NOW)
    assert not AddressValidator(bytes(32)).is_valid_untrusted(token, ADDRESS, CLIENT, NOW)


def test_bytes_of_the_id_cannot_be_moved_into_the_address() -> None:
    token = validator.make_token(b"\x01" + ADDRESS, CLIENT, NOW)
    assert not validator.is_valid_untrusted(token, ADDRESS, (CLIENT << 8) | 1, NOW)


def test_a_single_wrong_bit_makes_a_token_invalid() -> None:
    token = validator.make_token(ADDRESS, CLIENT, NOW)
    for bit in range(8 * len(token)):
        forged = bytearray(token)
        forged[bit // 8] ^= 1 << bit % 8
        assert not validator.is_valid_untrusted(bytes(forged), ADDRESS, CLIENT, NOW)


@given(st.binary(max_size=300))
def test_noise_is_not_valid(token: bytes) -> None:
    assert not validator.is_valid_untrusted(token, ADDRESS, CLIENT, NOW)


def test_a_token_fits_its_packet() -> None:
    assert 0 < len(validator.make_token(ADDRESS, CLIENT, NOW)) <= 256
