"""For any bytes, the decoders of the TCP transport return a value within its bounds or raise ProtocolError."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from toolkit.channel import MAX_MESSAGE_BYTES, Extent
from toolkit.errors import ProtocolError
from toolkit.transports.tcp import wire

HELLO = wire.encode_hello(wire.Hello(bytes(16), 1, 0, b""))


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
        assert preface is None or preface.body_bytes <= wire.MAX_BODY_BYTES


@given(st.binary(max_size=64))
def test_bodies_are_encoded_as_they_were_decoded(data: bytes) -> None:
    with suppress(ProtocolError):
        hello = wire.decode_hello_untrusted(data)
        assert hello.stream < max(1, hello.streams)
        assert wire.encode_hello(hello)[wire.PREFACE_BYTES :] == data
    with suppress(ProtocolError):
        assert wire.encode_welcome(wire.decode_welcome_untrusted(data))[wire.PREFACE_BYTES :] == data


@given(
    st.one_of(
        st.binary(min_size=24, max_size=24),
        st.builds(lambda tail: b"\x02\0\0\0" + tail, st.binary(min_size=20, max_size=20)),
    )
)
def test_a_frame_is_within_its_bounds(header: bytes) -> None:
    with suppress(ProtocolError):
        frame = wire.decode_frame_untrusted(header)
        if isinstance(frame, Extent):
            assert frame.offset + frame.length < 2**63
        else:
            assert frame.length <= MAX_MESSAGE_BYTES


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**62 - 1), st.integers(0, 2**62 - 1))
def test_every_extent_is_decoded_as_encoded(file_id: int, offset: int, length: int) -> None:
    extent = Extent(file_id, offset, length)
    assert wire.decode_frame_untrusted(wire.encode_extent_header(extent)) == extent
