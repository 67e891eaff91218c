"""For any bytes, the decoders of the TCP transport return a value within its bounds or raise ProtocolError."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.channel import MAX_MESSAGE_BYTES, Extent
from toolkit.errors import ProtocolError
from toolkit.parameters import encode_parameters
from toolkit.transports.tcp import records, wire

HELLO = wire.encode_hello(wire.hello_parameters(1, (27, b"")), bytes(100))

PARAMETERS = st.dictionaries(st.integers(0, 9), st.binary(max_size=40), max_size=8)
BODIES = st.one_of(st.binary(max_size=64), PARAMETERS.map(encode_parameters))


@st.composite
def nearly_valid(draw: st.DrawFn) -> bytes:
    """A valid preface with some bytes changed, cut off anywhere."""
    data = bytearray(HELLO)
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.one_of(st.binary(max_size=64), nearly_valid()))
def test_a_preface_is_within_its_bounds(data: bytes) -> None:
    with suppress(ProtocolError):
        preface = wire.decode_preface_untrusted(data)
        assert (preface is None) == (len(data) < wire.PREFACE_BYTES)
        assert preface is None or preface.version != wire.VERSION or preface.body_bytes <= wire.MAX_BODY_BYTES


@pytest.mark.parametrize(
    "decode",
    [
        wire.decode_hello_untrusted,
        wire.decode_security_untrusted,
        wire.decode_join_untrusted,
        wire.decode_refused_untrusted,
        wire.decode_client_parameters_untrusted,
        wire.decode_server_parameters_untrusted,
    ],
    ids=lambda decode: decode.__name__,
)
@given(BODIES)
def test_a_body_is_decoded_or_raises_the_one_error(decode: Callable[[bytes], object], body: bytes) -> None:
    with suppress(ProtocolError):
        decode(body)


@given(BODIES)
def test_what_is_decoded_is_within_its_bounds(body: bytes) -> None:
    with suppress(ProtocolError):
        join = wire.decode_join_untrusted(body)
        assert (len(join.token), len(join.mac)) == (wire.TOKEN_BYTES, wire.MAC_BYTES)
        assert 0 <= join.number < 1 << 16
    with suppress(ProtocolError):
        assert 0 <= wire.decode_refused_untrusted(body).reason < 256
    with suppress(ProtocolError):
        hello = wire.decode_hello_untrusted(body)
        assert len(hello.clear) + len(hello.security) <= len(body)


@given(
    st.one_of(
        st.binary(min_size=24, max_size=24),
        st.builds(
            lambda kind, tail: bytes([kind, 0, 0, 0]) + tail,
            st.integers(1, 3),
            st.one_of(
                st.binary(min_size=20, max_size=20), st.binary(min_size=2, max_size=2).map(lambda n: bytes(18) + n)
            ),
        ),
    )
)
def test_a_frame_is_within_its_bounds(header: bytes) -> None:
    with suppress(ProtocolError):
        frame = wire.decode_frame_untrusted(header)
        if isinstance(frame, Extent):
            assert frame.offset + frame.length < 2**63
            assert frame.length <= wire.MAX_EXTENT_BYTES
        else:
            assert frame.length <= (MAX_MESSAGE_BYTES if isinstance(frame, wire.MessageHeader) else 512)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**62 - 1), st.integers(0, wire.MAX_EXTENT_BYTES))
def test_every_extent_is_decoded_as_encoded(file_id: int, offset: int, length: int) -> None:
    extent = Extent(file_id, offset, length)
    assert wire.decode_frame_untrusted(wire.encode_extent_header(extent)) == extent


@given(st.one_of(st.binary(min_size=4, max_size=4), st.integers(0, 2**19).map(lambda n: n.to_bytes(4, "big"))))
def test_the_length_of_a_record_is_within_its_bounds(data: bytes) -> None:
    with suppress(ProtocolError):
        assert 16 < records.decode_record_length_untrusted(data) <= records.MAX_RECORD_BYTES + 16
