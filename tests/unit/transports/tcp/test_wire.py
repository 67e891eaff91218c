"""The layouts of the TCP transport: encoding and decoding, and bytes that are not nettool's."""

import pytest

from toolkit.channel import MAX_MESSAGE_BYTES, Extent
from toolkit.errors import ProtocolError
from toolkit.parameters import decode_parameters_untrusted, encode_parameters
from toolkit.transports.tcp import wire
from toolkit.transports.tcp.wire import PrefaceParameter, PrefaceRefusal, PrefaceType

GREASE = (31 * 5 + 27, b"anything")
CLEAR = wire.hello_parameters(3, GREASE)
JOIN = wire.Join(bytes(range(16)), 2, bytes(range(32)))
TOKEN = bytes(range(16))


def body_of(preface: bytes) -> bytes:
    return preface[wire.PREFACE_BYTES :]


@pytest.mark.parametrize(
    ("data", "preface_type"),
    [
        (wire.encode_hello(CLEAR, b"key"), PrefaceType.HELLO),
        (wire.encode_security(PrefaceType.WELCOME, b"key", GREASE), PrefaceType.WELCOME),
        (wire.encode_security(PrefaceType.RETRY, b"key"), PrefaceType.RETRY),
        (wire.encode_security(PrefaceType.FINISH, b"key"), PrefaceType.FINISH),
        (wire.encode_join(JOIN), PrefaceType.JOIN),
        (wire.encode_joined(), PrefaceType.JOINED),
        (wire.encode_refusal(PrefaceRefusal.BUSY), PrefaceType.REFUSED),
        (wire.encode_version_refusal(), PrefaceType.REFUSED_VERSION),
    ],
)
def test_a_preface_states_its_version_type_and_length(data: bytes, preface_type: PrefaceType) -> None:
    assert wire.decode_preface_untrusted(data) == (2, preface_type, len(body_of(data)))


def test_a_hello_is_decoded_as_encoded() -> None:
    hello = wire.decode_hello_untrusted(body_of(wire.encode_hello(CLEAR, b"key")))
    assert (hello.versions, hello.streams, hello.security) == ((2,), 3, b"key")
    assert decode_parameters_untrusted(hello.clear) == CLEAR
    assert hello.clear == encode_parameters(CLEAR)


def test_everything_clear_enters_the_prologue() -> None:
    prologues = {
        wire.prologue(encode_parameters(parameters))
        for parameters in (
            CLEAR,
            CLEAR | {GREASE[0]: b"something else"},
            wire.hello_parameters(4, GREASE),
            CLEAR | {PrefaceParameter.VERSIONS: bytes(4)},
        )
    }
    assert len(prologues) == 4


def test_a_hello_that_a_server_of_version_1_would_not_read_is_an_error() -> None:
    wire.encode_hello(CLEAR, bytes(900))
    with pytest.raises(ValueError, match="longer than 1024"):
        wire.encode_hello(CLEAR, bytes(1024))


def test_a_security_message_is_decoded_as_encoded() -> None:
    data = wire.encode_security(PrefaceType.WELCOME, b"message", GREASE)
    assert wire.decode_security_untrusted(body_of(data)) == b"message"


def test_a_join_is_decoded_as_encoded() -> None:
    assert wire.decode_join_untrusted(body_of(wire.encode_join(JOIN))) == JOIN


@pytest.mark.parametrize("reason", PrefaceRefusal)
@pytest.mark.parametrize("security", [b"", b"why"])
def test_a_refusal_is_decoded_as_encoded(reason: PrefaceRefusal, security: bytes) -> None:
    data = wire.encode_refusal(reason, security)
    assert wire.decode_refused_untrusted(body_of(data)) == (reason, security)


def test_sealed_parameters_are_decoded_as_encoded() -> None:
    assert wire.decode_client_parameters_untrusted(wire.encode_client_parameters(GREASE)) == 0
    sealed = wire.encode_server_parameters(TOKEN, GREASE)
    assert wire.decode_server_parameters_untrusted(sealed) == ((2,), TOKEN)


def test_unknown_parameters_are_ignored_everywhere() -> None:
    more = encode_parameters({60_000: b"from the future"})
    assert wire.decode_hello_untrusted(body_of(wire.encode_hello(CLEAR, b"key")) + more).streams == 3
    assert wire.decode_join_untrusted(body_of(wire.encode_join(JOIN)) + more) == JOIN
    assert wire.decode_refused_untrusted(body_of(wire.encode_refusal(PrefaceRefusal.BUSY)) + more).reason == 4
    assert wire.decode_client_parameters_untrusted(wire.encode_client_parameters(GREASE) + more) == 0
    assert wire.decode_server_parameters_untrusted(wire.encode_server_parameters(TOKEN, GREASE) + more)[1] == TOKEN


@pytest.mark.parametrize("missing", [PrefaceParameter.VERSIONS, PrefaceParameter.STREAMS, PrefaceParameter.SECURITY])
def test_a_hello_without_a_parameter_is_rejected(missing: PrefaceParameter) -> None:
    parameters = decode_parameters_untrusted(body_of(wire.encode_hello(CLEAR, b"key")))
    del parameters[missing]
    with pytest.raises(ProtocolError, match=f"lacks the parameter {missing.name}"):
        wire.decode_hello_untrusted(encode_parameters(parameters))


@pytest.mark.parametrize(
    "changed",
    [
        {PrefaceParameter.TOKEN: bytes(15)},
        {PrefaceParameter.TOKEN: bytes(17)},
        {PrefaceParameter.NUMBER: b"\x01"},
        {PrefaceParameter.MAC: bytes(31)},
        {PrefaceParameter.MAC: b""},
    ],
)
def test_a_join_of_wrong_sizes_is_rejected(changed: dict[int, bytes]) -> None:
    parameters = decode_parameters_untrusted(body_of(wire.encode_join(JOIN)))
    with pytest.raises(ProtocolError):
        wire.decode_join_untrusted(encode_parameters(parameters | changed))


def test_the_best_version_is_the_highest_that_both_speak() -> None:
    assert wire.best_version((2, 3), (1, 2)) == 2
    assert wire.best_version((2, 3), (3, 2, 9)) == 3
    assert wire.best_version((2,), (1,)) is None
    assert wire.best_version((2,), ()) is None


def test_a_preface_may_arrive_byte_by_byte_and_with_more_after_it() -> None:
    data = wire.encode_hello(CLEAR, b"key")
    for count in range(wire.PREFACE_BYTES):
        assert wire.decode_preface_untrusted(data[:count]) is None
    assert wire.decode_preface_untrusted(data) is not None
    assert wire.decode_preface_untrusted(data + b"more") is not None


@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-", bytes(64), b"\x8eNETT00L"])
def test_another_protocol_is_rejected_at_its_first_wrong_byte(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_preface_untrusted(data)


def test_the_fixed_part_of_a_preface_never_changes() -> None:
    assert wire.encode_version_refusal() == b"\x8eNETTOOL\x00\x02\x03\x00\x00\x00"
    assert wire.encode_hello(CLEAR, b"key")[:12] == b"\x8eNETTOOL\x00\x02\x01\x00"


@pytest.mark.parametrize(
    ("preface_type", "limit"),
    [(PrefaceType.HELLO, wire.MAX_HELLO_BYTES), (PrefaceType.WELCOME, wire.MAX_BODY_BYTES)],
)
def test_the_length_of_a_body_is_limited(preface_type: PrefaceType, limit: int) -> None:
    data = b"\x8eNETTOOL\x00\x02" + bytes([preface_type, 0])
    assert wire.decode_preface_untrusted(data + limit.to_bytes(2, "big")) is not None
    with pytest.raises(ProtocolError):
        wire.decode_preface_untrusted(data + (limit + 1).to_bytes(2, "big"))


def test_the_length_of_another_versions_body_is_not_for_this_version_to_limit() -> None:
    assert wire.decode_preface_untrusted(b"\x8eNETTOOL\x00\x03\x01\x00\xff\xff") == (3, 1, 65535)


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


@pytest.mark.parametrize(("reason", "length"), [("", 0), ("the code has ended", 18), ("é" * 300, 512)])
def test_a_close_is_decoded_as_encoded(reason: str, length: int) -> None:
    data = wire.encode_close(3, reason)
    assert wire.decode_frame_untrusted(data[: wire.FRAME_BYTES]) == wire.CloseHeader(3, length)
    assert data[wire.FRAME_BYTES :] == reason.encode()[:length]


@pytest.mark.parametrize(
    "header",
    [
        wire.encode_message_header(MAX_MESSAGE_BYTES + 1),
        wire.encode_extent_header(Extent(0, 2**63 - 1, 1)),
        wire.encode_extent_header(Extent(0, 1, 2**64 - 1)),
        wire.encode_extent_header(Extent(0, 0, wire.MAX_EXTENT_BYTES + 1)),
        bytes(wire.FRAME_BYTES),
        b"\x01\0\0\0\0\0\0\x01" + bytes(16),
        b"\x03\0\0\0\0\0\0\x03" + bytes(7) + b"\x01" + bytes(8),
        b"\x03" + bytes(21) + (wire.MAX_REASON_BYTES + 1).to_bytes(2, "big"),
        b"\x04" + bytes(23),
    ],
)
def test_an_invalid_frame_is_rejected(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.decode_frame_untrusted(header)
