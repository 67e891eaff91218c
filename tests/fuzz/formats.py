"""Fuzzers of the formats that are decoded in one call: what decodes must encode to the same again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.harness import Harness, T, decoded
from toolkit.channel import Extent
from toolkit.errors import UsageError, printable
from toolkit.parameters import (
    MAX_PARAMETERS,
    decode_parameters_untrusted,
    decode_uint_untrusted,
    decode_uints_untrusted,
    encode_parameters,
    encode_uints,
)
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.handshake import AcceptAssembler
from toolkit.security.aead import decode_aead_untrusted, decode_speeds_untrusted, encode_speeds
from toolkit.security.code_words import MAX_NAMEPLATE, WORDS_PER_CODE, parse_code
from toolkit.security.key_file import KEY_BYTES, read_key
from toolkit.security.keys import AeadName
from toolkit.security.messages import FirstMessage
from toolkit.transfer import attributes, chunks, messages
from toolkit.transfer.manifest import Entry, EntryKind
from toolkit.transfer.names import display_name, refusal_reason_untrusted
from toolkit.transports.tcp import wire as tcp
from toolkit.transports.udp.extents import decode_announcements_untrusted, encode_announcements

CLIENT_ID = 0xAAAA_BBBB_CCCC_DDDD
GREASE = (31 * 5 + 27, b"grease")


def check_parameters(data: bytes) -> bool:
    parameters = decoded(decode_parameters_untrusted, data)
    if data:
        size = data[0] % 9 + 1
        decoded(decode_uint_untrusted, data[1:], size)
        values = decoded(decode_uints_untrusted, data[1:], size)
        assert values is None or encode_uints(values, size) == data[1:]
    if parameters is None:
        return False
    assert len(parameters) <= MAX_PARAMETERS
    encoded = encode_parameters(parameters)
    assert len(encoded) == len(data)
    assert decode_parameters_untrusted(encoded) == parameters
    assert encoded == data or list(parameters) != sorted(parameters)
    return True


def seeds_of_parameters() -> list[bytes]:
    return [
        encode_parameters({1: b"\0\0\0\2", 2: b"", GREASE[0]: GREASE[1]}),
        encode_parameters(dict.fromkeys(range(MAX_PARAMETERS), b"x")),
        encode_parameters({0xFFFF: bytes(300)}),
    ]


def check_ack(data: bytes) -> bool:
    ack = decoded(wire.decode_ack_untrusted, data)
    limited = decoded(wire.decode_ack_untrusted, data, 8)
    if ack is None:
        assert limited is None
        return False
    assert (limited is not None) == (len(ack.ranges) <= 8)
    assert all(0 <= start < end for start, end in ack.ranges)
    assert all(older[1] < newer[0] for newer, older in zip(ack.ranges, ack.ranges[1:], strict=False))
    again = wire.decode_ack_untrusted(wire.encode_ack(1, 2, ack))
    assert again == ack
    return True


def seeds_of_ack() -> list[bytes]:
    ranges = [[(0, 1)], [(90, 100), (50, 60), (0, 7)], [(2 * i, 2 * i + 1) for i in range(100, 0, -1)]]
    return [wire.encode_ack(CLIENT_ID, 77, wire.AckPacket(some, 250, 1 << 30, 1 << 20, 3, 1, 0)) for some in ranges]


def check_close(data: bytes) -> bool:
    close = decoded(wire.decode_close_untrusted, data)
    if close is None:
        return False
    code, reason = close
    shown = printable(reason)
    assert shown.isprintable()
    assert len(reason) <= wire.MAX_REASON_BYTES
    assert wire.decode_close_untrusted(wire.encode_close(1, 2, code, shown))[0] == code
    return True


def seeds_of_close() -> list[bytes]:
    return [wire.encode_close(CLIENT_ID, 9, code, text) for code, text in ((0, ""), (4, "no space left"), (3, "ü\x1b"))]


def check_udp_packets(data: bytes) -> bool:
    """Every decoder of a handshake packet, whatever the type of the packet says."""
    initial = decoded(packets.decode_initial_untrusted, data)
    if initial is not None:
        assert packets.decode_initial_untrusted(initial.encode()) == initial
    answers: tuple[Callable[[bytes], object], ...] = (
        wire.connection_id_untrusted,
        packets.initial_version_untrusted,
        packets.decode_retry_untrusted,
        packets.decode_refuse_untrusted,
        packets.decode_version_untrusted,
        packets.decode_finish_untrusted,
        AcceptAssembler().add_untrusted,
    )
    results = [decoded(decode, data) for decode in answers]
    client = decoded(packets.decode_client_parameters_untrusted, data)
    if client is not None:
        assert packets.decode_client_parameters_untrusted(client.encode()) == client
    server = decoded(packets.decode_server_parameters_untrusted, data)
    if server is not None:
        assert packets.decode_server_parameters_untrusted(server.encode()) == server
    return any(result is not None for result in (initial, client, server, *results[1:]))


def seeds_of_udp_packets() -> list[bytes]:
    offer = packets.make_offer(GREASE)
    accept = packets.encode_accept(CLIENT_ID, bytes(range(250)) * 5)
    return [
        packets.InitialPacket(CLIENT_ID, offer, b"first message").encode(),
        packets.InitialPacket(CLIENT_ID, offer, b"first message", bytes(40)).encode(),
        packets.InitialPacket(CLIENT_ID, offer, b"m", version=packets.VERSION + 1).encode(),
        packets.encode_retry(CLIENT_ID, packets.Parameter.TOKEN, bytes(40)),
        packets.encode_retry(CLIENT_ID, packets.Parameter.SECURITY, b"P2"),
        packets.encode_refuse(CLIENT_ID, b"no"),
        packets.encode_version(CLIENT_ID),
        packets.encode_version(CLIENT_ID)[: packets.VERSION_ANSWER.size],
        *accept,
        *packets.encode_accept(CLIENT_ID, b"short"),
        packets.encode_finish(CLIENT_ID, b"last message"),
        packets.ClientParameters(1472, 5).encode(),
        packets.ServerParameters(CLIENT_ID, 1472, 1 << 20, b"token", 1).encode(),
    ]


def check_tcp_prefaces(data: bytes) -> bool:
    """The fixed part, whole and byte by byte, and every decoder of a body."""
    preface = decoded(tcp.decode_preface_untrusted, data)
    if preface is not None:
        assert all(tcp.decode_preface_untrusted(data[:end]) is None for end in range(tcp.PREFACE_BYTES))
        assert tcp.decode_preface_untrusted(data[: tcp.PREFACE_BYTES]) == preface
    body = data[tcp.PREFACE_BYTES :] if preface is not None else data
    hello = decoded(tcp.decode_hello_untrusted, body)
    if hello is not None:
        parameters = decode_parameters_untrusted(hello.clear)
        assert len(hello.clear) + 4 + len(hello.security) == len(body)
        assert tcp.PrefaceParameter.SECURITY not in parameters
    join = decoded(tcp.decode_join_untrusted, body)
    if join is not None:
        assert tcp.decode_join_untrusted(tcp.encode_join(join)[tcp.PREFACE_BYTES :]) == join
    others = (
        tcp.decode_security_untrusted,
        tcp.decode_refused_untrusted,
        tcp.decode_client_parameters_untrusted,
        tcp.decode_server_parameters_untrusted,
    )
    results: list[object] = [decoded(decode, body) for decode in others]
    return any(result is not None for result in (preface, hello, join, *results))


def seeds_of_tcp_prefaces() -> list[bytes]:
    return [
        tcp.encode_hello(tcp.hello_parameters(4, GREASE), b"first message"),
        tcp.encode_security(tcp.PrefaceType.RETRY, b"P2"),
        tcp.encode_security(tcp.PrefaceType.WELCOME, bytes(1300), GREASE),
        tcp.encode_security(tcp.PrefaceType.FINISH, bytes(1100)),
        tcp.encode_join(tcp.Join(bytes(tcp.TOKEN_BYTES), 3, bytes(tcp.MAC_BYTES))),
        tcp.encode_joined(),
        tcp.encode_refusal(tcp.PrefaceRefusal.BUSY),
        tcp.encode_refusal(tcp.PrefaceRefusal.SECURITY, b"no"),
        tcp.encode_version_refusal(),
        tcp.encode_client_parameters(GREASE),
        tcp.encode_server_parameters(bytes(tcp.TOKEN_BYTES), GREASE),
    ]


def check_session_messages(data: bytes) -> bool:
    message = decoded(messages.decode_untrusted, data)
    if message is None:
        return False
    if isinstance(message, messages.Begin) and message.version != messages.SESSION_VERSION:
        return True  # the rest of it is unknown
    if isinstance(message, messages.Accept) and chunks.HELD_PARAMETER in message.parameters:
        value = message.parameters[chunks.HELD_PARAMETER]
        held = decoded(chunks.decode_held_untrusted, value)
        assert held is None or chunks.encode_held(held) == value
    if isinstance(message, messages.Offer):
        for entry in message.entries:
            reason = refusal_reason_untrusted(entry.path, dotfiles=False)
            assert reason is not None or display_name(entry.path)[0] not in "./-"
    encoded = message.encode()
    assert len(encoded) == len(data)
    assert messages.decode_untrusted(encoded) == message
    parameters = getattr(message, "parameters", {})
    assert encoded == data or list(parameters) != sorted(parameters)
    return True


def seeds_of_session_messages() -> list[bytes]:
    outcomes = (
        messages.EntryOutcome(messages.EntryStatus.OK),
        messages.EntryOutcome(messages.EntryStatus.REFUSED, "no"),
    )
    entries = (
        Entry(EntryKind.FILE, b"dir/file", 0o644, 10**18, 12345, 12000),
        Entry(EntryKind.FILE, b"stream", 0o600, -1, None, 0),
        Entry(EntryKind.DIRECTORY, b"dir", 0o755, 0),
    )
    every: list[messages.AnyMessage] = [
        messages.Begin(total_files=3, total_bytes=1 << 40, parameters=dict([GREASE])),
        messages.Begin(version=messages.SESSION_VERSION + 1),
        messages.Offer(0, entries, dict([GREASE])),
        messages.Accept(1, outcomes, dict([GREASE])),
        messages.Accept(1, outcomes, {chunks.HELD_PARAMETER: chunks.encode_held({1: (chunks.ChunkRange(4, 5),)})}),
        messages.Result(2, outcomes),
        messages.Hole(3, 1 << 20, 1 << 16),
        messages.Digests((messages.FileDigest(0, 12345, bytes(16)), messages.FileDigest(1, 0, bytes(16)))),
        messages.Withdraw(4, "the file has changed"),
        chunks.Chunks(5, 1 << 12, (bytes(16), bytes(range(16)))),
        chunks.Kept(5, 1 << 12, (True, False)),
        messages.End(3),
        messages.Done(2, 12345),
        messages.ErrorMessage(messages.ErrorReason.REFUSED, "no space left"),
        messages.Alive(),
    ]
    return [message.encode() for message in every]


def check_announcements(data: bytes) -> bool:
    extents = decoded(decode_announcements_untrusted, data)
    if extents is None:
        return False
    assert encode_announcements(extents) == data
    return True


def seeds_of_announcements() -> list[bytes]:
    return [
        encode_announcements([Extent(0, 0, 1 << 20), Extent(1, 5, 0)]),
        encode_announcements([Extent(9, 1 << 62, 7)]),
    ]


def check_credentials(data: bytes) -> bool:
    """Codes as a person types them, key files, and the fields of the key exchange."""
    code = _unless_refused(parse_code, data.decode("utf-8", "surrogateescape"))
    if code is not None:
        assert 0 < code.nameplate <= MAX_NAMEPLATE
        assert len(code.words) == WORDS_PER_CODE
        assert parse_code(str(code)) == code
    descriptor = os.memfd_create("key")
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        key = _unless_refused(read_key, Path(f"/proc/self/fd/{descriptor}"))
        assert key is None or len(key) == KEY_BYTES
    finally:
        os.close(descriptor)
    speeds = decoded(decode_speeds_untrusted, data)
    if speeds is not None:
        assert decode_speeds_untrusted(encode_speeds(speeds)) == speeds
    found = (
        code,
        key,
        speeds,
        decoded(decode_aead_untrusted, data),
        decoded(FirstMessage.decode_untrusted, data, b"prologue"),
    )
    return any(found)


def _unless_refused(parse: Callable[[Any], T], text: object) -> T | None:
    """Return what `parse` returns; None if it raises a UsageError, whose text must be fit for a terminal."""
    try:
        return parse(text)
    except UsageError as error:
        message = str(error)
    assert printable(message, 1000) == message
    return None


def seeds_of_credentials() -> list[bytes]:
    return [
        b"7-ocean-brick-lunar",
        b" 999 OCEAN_bric  luna\n",
        b"nettool key 1\n" + b"0123456789abcdefABCDEF0123456789" * 2 + b"\n",
        encode_speeds({AeadName.AES_256_GCM: 9000, AeadName.CHACHA20_POLY1305: 4000}),
        b"\2",
        encode_parameters({1: b"\2", 2: b"7", 3: bytes(33), 4: bytes(60)}),
    ]


def check_attributes(data: bytes) -> bool:
    """What is preserved of a few entries; the first byte says of how many."""
    if not data:
        return False
    found = decoded(attributes.decode_list_untrusted, data[1:], data[0] % 4 + 1, attributes.PRESERVE_ALL)
    if found is None:
        return False
    again = attributes.decode_list_untrusted(attributes.encode_list(found), len(found), attributes.PRESERVE_ALL)
    assert list(again) == list(found)
    assert all(one.only(attributes.Preserve.NOTHING) == attributes.Attributes() for one in found)
    assert all(one.special_bits == 0 for one in found if one.owner is None)
    return True


def seeds_of_attributes() -> list[bytes]:
    owner = attributes.Owner(1000, 0, b"user", b"")
    some = [
        attributes.Attributes(),
        attributes.Attributes(mode=0o4755, owner=owner),
        attributes.Attributes(xattrs=((b"user.a", b"\0value"), (b"user.b", b""))),
        attributes.Attributes(0o644, attributes.Owner(attributes.MAX_ID, attributes.MAX_ID), ((b"user.", bytes(300)),)),
    ]
    return [bytes([more]) + attributes.encode_list(some[: more + 1]) for more in range(len(some))]


HARNESSES = [
    Harness("attributes", check_attributes, seeds_of_attributes),
    Harness("parameters", check_parameters, seeds_of_parameters),
    Harness("ack", check_ack, seeds_of_ack),
    Harness("close", check_close, seeds_of_close),
    Harness("udp-packets", check_udp_packets, seeds_of_udp_packets),
    Harness("tcp-prefaces", check_tcp_prefaces, seeds_of_tcp_prefaces),
    Harness("session-messages", check_session_messages, seeds_of_session_messages),
    Harness("announcements", check_announcements, seeds_of_announcements),
    Harness("credentials", check_credentials, seeds_of_credentials),
]
