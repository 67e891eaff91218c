"""A token is valid for what it was made for, for a limited time, and cannot be made without the key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rudp.address_validation import (
    RETRY_TOKEN_LIFETIME_NS,
    RETURN_TOKEN_LIFETIME_NS,
    TOKEN_BYTES,
    AddressValidator,
)

PEER = (bytes((192, 0, 2, 1)), 4711)
OTHER_PORT = (PEER[0], 4712)
OTHER_HOST = (bytes((192, 0, 2, 2)), 4711)
CLIENT = 0x1234
NOW = 5_000_000_000_000
validator = AddressValidator(bytes(range(32)))
ids = st.integers(0, (1 << 64) - 1)
peers = st.tuples(st.binary(max_size=16), st.integers(0, 65_535))


@given(peers, ids, ids, st.integers(0, 1 << 62))
def test_a_returned_token_is_valid(peer: tuple[bytes, int], client_id: int, later_id: int, now_ns: int) -> None:
    assert validator.is_valid_untrusted(validator.retry_token(*peer, client_id, now_ns), *peer, client_id, now_ns)
    assert validator.is_valid_untrusted(validator.return_token(peer[0], now_ns), *peer, later_id, now_ns)


@pytest.mark.parametrize(
    ("token", "lifetime_ns"),
    [
        (validator.retry_token(*PEER, CLIENT, NOW), RETRY_TOKEN_LIFETIME_NS),
        (validator.return_token(PEER[0], NOW), RETURN_TOKEN_LIFETIME_NS),
    ],
)
def test_a_token_expires(token: bytes, lifetime_ns: int) -> None:
    ages_ns = (-1, 0, lifetime_ns, lifetime_ns + 1)
    valid = [validator.is_valid_untrusted(token, *PEER, CLIENT, NOW + age_ns) for age_ns in ages_ns]
    assert valid == [False, True, True, False]


def test_a_retry_token_is_valid_for_one_address_port_and_id() -> None:
    token = validator.retry_token(*PEER, CLIENT, NOW)
    assert not validator.is_valid_untrusted(token, *OTHER_HOST, CLIENT, NOW)
    assert not validator.is_valid_untrusted(token, *OTHER_PORT, CLIENT, NOW)
    assert not validator.is_valid_untrusted(token, *PEER, CLIENT + 1, NOW)
    assert not AddressValidator(bytes(32)).is_valid_untrusted(token, *PEER, CLIENT, NOW)


def test_a_return_token_is_valid_for_one_host() -> None:
    token = validator.return_token(PEER[0], NOW)
    assert validator.is_valid_untrusted(token, *OTHER_PORT, CLIENT + 1, NOW)
    assert not validator.is_valid_untrusted(token, *OTHER_HOST, CLIENT, NOW)
    assert not AddressValidator(bytes(32)).is_valid_untrusted(token, *PEER, CLIENT, NOW)


@pytest.mark.parametrize("token", [validator.retry_token(*PEER, CLIENT, NOW), validator.return_token(PEER[0], NOW)])
def test_a_single_wrong_bit_makes_a_token_invalid(token: bytes) -> None:
    assert len(token) == TOKEN_BYTES
    for bit in range(8 * len(token)):
        forged = bytearray(token)
        forged[bit // 8] ^= 1 << bit % 8
        assert not validator.is_valid_untrusted(bytes(forged), *PEER, CLIENT, NOW)


@given(st.binary(max_size=300))
def test_noise_is_not_valid(token: bytes) -> None:
    assert not validator.is_valid_untrusted(token, *PEER, CLIENT, NOW)
