"""Encoding and decoding of parameters, and GREASE."""

import random

import pytest

from toolkit.errors import ProtocolError
from toolkit.parameters import (
    MAX_GREASE_BYTES,
    MAX_PARAMETERS,
    decode_parameters_untrusted,
    decode_uint_untrusted,
    decode_uints_untrusted,
    encode_parameters,
    encode_uints,
    grease,
    is_grease,
)


def test_parameters_are_encoded_in_ascending_order_whatever_the_order_of_the_mapping() -> None:
    expected = bytes.fromhex("0001 0000 0002 0003 616263")
    assert encode_parameters({1: b"", 2: b"abc"}) == expected
    assert encode_parameters({2: b"abc", 1: b""}) == expected
    assert encode_parameters({}) == b""


def test_parameters_are_decoded_whatever_their_order() -> None:
    assert decode_parameters_untrusted(bytes.fromhex("0002 0001 61 0001 0000")) == {2: b"a", 1: b""}
    assert decode_parameters_untrusted(memoryview(b"")) == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("00", "within its header"),
        ("000100", "within its header"),
        ("0001 0001", "cut short"),
        ("0001 ffff 00", "cut short"),
        ("0001 0000 0001 0000", "repeated"),
    ],
)
def test_malformed_parameters_are_rejected(data: str, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode_parameters_untrusted(bytes.fromhex(data))


def test_too_many_parameters_are_rejected_by_both_ends() -> None:
    most = dict.fromkeys(range(MAX_PARAMETERS), b"")
    assert decode_parameters_untrusted(encode_parameters(most)) == most
    with pytest.raises(ProtocolError, match="more than"):
        decode_parameters_untrusted(encode_parameters(most) + bytes.fromhex("ffff 0000"))
    with pytest.raises(ValueError, match="limit"):
        encode_parameters({**most, 0xFFFF: b""})


@pytest.mark.parametrize("parameters", [{-1: b""}, {1 << 16: b""}, {1: bytes(1 << 16)}])
def test_a_parameter_that_does_not_fit_its_header_is_not_encoded(parameters: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_parameters(parameters)


def test_integers_in_parameters_have_an_exact_size() -> None:
    assert decode_uint_untrusted(b"\x01\x02", 2) == 258
    assert decode_uints_untrusted(encode_uints((1, 2), 4), 4) == (1, 2)
    assert decode_uints_untrusted(b"", 4) == ()
    with pytest.raises(ProtocolError, match="3 bytes instead of 2"):
        decode_uint_untrusted(bytes(3), 2)
    with pytest.raises(ProtocolError, match="not a list"):
        decode_uints_untrusted(bytes(5), 4)


def test_grease_has_reserved_ids_and_every_length() -> None:
    rng = random.Random(5)
    drawn = [grease(rng.randbytes) for _ in range(2000)]
    assert all(is_grease(identifier) and identifier <= 0xFFFF for identifier, _ in drawn)
    assert {len(value) for _, value in drawn} == set(range(MAX_GREASE_BYTES + 1))
    assert len({identifier for identifier, _ in drawn}) > 1000
    assert not any(is_grease(identifier) for identifier in range(27))
