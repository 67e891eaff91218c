"""The layouts of the TCP transport: encoding and decoding, and bytes that are not nettool's."""

import pytest

from toolkit.channel import MAX_MESSAGE_BYTES, Extent
from toolkit.errors import ProtocolError
from toolkit.transports.tcp import wire

HELLO = wire.Hello(bytes(range(16)), 3, 2, b"")


def test_a_hello_is_decoded_as_encoded() -> None:
    data = wire.encode_hello(HELLO)
    assert wire.decode_preface_untrusted(data) == (wire.VERSION, wire.PrefaceType.HELLO, len(data) - wire.PREFACE_BYTES)
    assert wire.decode_hello_untrusted(data[wire.PREFACE_BYTES :]) == HELLO


def test_a_welcome_is_decoded_as_encoded() -> None:
    welcome = wire.Welcome(bytes(range(16)), b"later")
    data = wire.encode_welcome(welcome)
    assert wire.decode_welcome_untrusted(data[wire.PREFACE_BYTES :]) == welcome


@pytest.mark.parametrize("refusal", [t for t in wire.PrefaceType if t.name.startswith("REFUSED")])
def test_a_refusal_has_no_body(refusal: wire.PrefaceType) -> None:
    assert wire.decode_preface_untrusted(wire.encode_refusal(refusal)) == (wire.VERSION, refusal, 0)


def test_a_preface_may_arrive_byte_by_byte_and_with_more_after_it() -> None:
    data = wire.encode_hello(HELLO)
    for count in range(wire.PREFACE_BYTES):
        assert wire.decode_preface_untrusted(data[:count]) is None
    assert wire.decode_preface_untrusted(data) is not None
    assert wire.decode_preface_untrusted(data + b"more") is not None


@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-", bytes(64), b"\x8eNETT00L"])
def test_another_protocol_is_rejected_at_its_first_wrong_byte(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_preface_untrusted(data)


def test_the_fixed_part_of_a_preface_never_changes() -> None:
    assert wire.encode_refusal(wire.PrefaceType.REFUSED_VERSION)[:11] == b"\x8eNETTOOL\x00\x01\x03"


def test_the_length_of_a_body_is_limited() -> None:
    data = bytearray(wire.encode_refusal(wire.PrefaceType.REFUSED_VERSION))
    data[-2:] = (wire.MAX_BODY_BYTES + 1).to_bytes(2, "big")
    with pytest.raises(ProtocolError):
        wire.decode_preface_untrusted(bytes(data))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes(21),
        wire.encode_hello(HELLO)[wire.PREFACE_BYTES :] + b"x",
        wire.encode_hello(HELLO._replace(stream=3))[wire.PREFACE_BYTES :],
        wire.encode_hello(HELLO._replace(security=b"key"))[wire.PREFACE_BYTES : -1],
    ],
)
def test_an_inconsistent_hello_is_rejected(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_hello_untrusted(body)


@pytest.mark.parametrize("body", [b"", bytes(17), bytes(19), bytes(16) + b"\x00\x02x"])
def test_an_inconsistent_welcome_is_rejected(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_welcome_untrusted(body)


@pytest.mark.parametrize(
    "extent", [Extent(0, 0, 0), Extent(2**32 - 1, 2**63 - 2, 1), Extent(7, 123_456_789_012, 1 << 20)]
)
def test_an_extent_is_decoded_as_encoded(extent: Extent) -> None:
    header = wire.encode_extent_header(extent)
    assert len(header) == wire.FRAME_BYTES
    assert wire.decode_frame_untrusted(header) == extent


@pytest.mark.parametrize("length", [0, 1, MAX_MESSAGE_BYTES])
def test_a_message_header_is_decoded_as_encoded(length: int) -> None:
    assert wire.decode_frame_untrusted(wire.encode_message_header(length)) == wire.MessageHeader(length)


@pytest.mark.parametrize(
    "header",
    [
        wire.encode_message_header(MAX_MESSAGE_BYTES + 1),
        wire.encode_extent_header(Extent(0, 2**63 - 1, 1)),
        wire.encode_extent_header(Extent(0, 1, 2**64 - 1)),
        bytes(wire.FRAME_BYTES),
        b"\x01\0\0\0\0\0\0\x01" + bytes(16),
        b"\x03" + bytes(23),
    ],
)
def test_an_invalid_frame_is_rejected(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_frame_untrusted(header)
