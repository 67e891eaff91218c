"""Parameters survive encoding and decoding; hostile bytes raise ProtocolError or decode to parameters."""

from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ProtocolError
from toolkit.parameters import (
    MAX_PARAMETERS,
    decode_parameters_untrusted,
    decode_uints_untrusted,
    encode_parameters,
    encode_uints,
    grease,
)

identifiers = st.integers(0, 0xFFFF)
parameters = st.dictionaries(identifiers, st.binary(max_size=100), max_size=MAX_PARAMETERS)


@given(parameters)
def test_parameters_survive(given_parameters: dict[int, bytes]) -> None:
    encoded = encode_parameters(given_parameters)
    assert decode_parameters_untrusted(encoded) == given_parameters
    assert encode_parameters(dict(reversed(given_parameters.items()))) == encoded


@given(st.binary(min_size=64, max_size=64))
def test_grease_is_a_parameter_like_any_other(randomness: bytes) -> None:
    identifier, value = grease(lambda length: randomness[:length])
    assert decode_parameters_untrusted(encode_parameters({1: b"known", identifier: value})) == {
        1: b"known",
        identifier: value,
    }


@given(st.binary(max_size=400))
def test_hostile_bytes(data: bytes) -> None:
    try:
        decoded = decode_parameters_untrusted(data)
    except ProtocolError:
        return
    assert decode_parameters_untrusted(encode_parameters(decoded)) == decoded
    assert sum(4 + len(value) for value in decoded.values()) == len(data)


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_lists_of_integers_survive(size_bytes: int, data: st.DataObject) -> None:
    values = tuple(data.draw(st.lists(st.integers(0, (1 << 8 * size_bytes) - 1), max_size=20)))
    assert decode_uints_untrusted(encode_uints(values, size_bytes), size_bytes) == values
