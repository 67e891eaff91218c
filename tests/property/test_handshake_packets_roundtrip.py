"""Every packet of the handshake survives encoding and decoding; hostile bytes give ProtocolError or a value."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile_bytes import damaged
from tests.support.repetitions import examples
from toolkit.errors import ProtocolError
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.handshake import AcceptAssembler
from toolkit.rudp.handshake_packets import Parameter
from toolkit.rudp.wire import PacketType

ids = st.integers(0, (1 << 64) - 1)
capabilities = st.integers(0, (1 << 64) - 1)
datagram_sizes = st.integers(wire.MIN_DATAGRAM_BYTES, wire.MAX_DATAGRAM_BYTES)
tokens = st.binary(max_size=packets.MAX_TOKEN_BYTES)
first_messages = st.binary(min_size=1, max_size=packets.MAX_FIRST_MESSAGE_BYTES)
unknown = st.dictionaries(st.integers(100, 0xFFFF), st.binary(max_size=20), max_size=3)
offers = unknown.map(lambda parameters: parameters | packets.make_offer())
initials = st.builds(packets.InitialPacket, ids, offers, first_messages, tokens)
clients = st.builds(packets.ClientParameters, datagram_sizes, capabilities)
servers = st.builds(
    packets.ServerParameters, ids, datagram_sizes, st.integers(0, wire.MAX_OFFSET), tokens, capabilities
)


@given(initials)
def test_initial(initial: packets.InitialPacket) -> None:
    datagram = initial.encode()
    assert len(datagram) == wire.MIN_DATAGRAM_BYTES
    assert packets.decode_initial_untrusted(datagram) == initial
    assert packets.has_token_untrusted(datagram) == bool(initial.token)
    assert packets.initial_version_untrusted(datagram) == packets.VERSION
    assert wire.connection_id_untrusted(datagram) == (PacketType.INITIAL, initial.client_id)


@given(initials)
def test_everything_in_the_clear_but_the_token_is_in_the_prologue(initial: packets.InitialPacket) -> None:
    decoded = packets.decode_initial_untrusted(initial.encode())
    assert decoded.prologue() == initial.prologue() == packets.prologue_of(initial.client_id, initial.offer)
    more = packets.InitialPacket(initial.client_id, {**initial.offer, 99: b""}, initial.security)
    other_id = packets.InitialPacket(initial.client_id ^ 1, initial.offer, initial.security)
    assert len({initial.prologue(), more.prologue(), other_id.prologue()}) == 3


@given(ids, tokens.filter(bool), first_messages)
def test_retry(client_id: int, token: bytes, security: bytes) -> None:
    with_token = packets.encode_retry(client_id, Parameter.TOKEN, token)
    assert packets.decode_retry_untrusted(with_token) == (token, b"")
    assert packets.decode_retry_untrusted(packets.encode_retry(client_id, Parameter.SECURITY, security)) == (
        b"",
        security,
    )
    assert wire.connection_id_untrusted(with_token) == (PacketType.RETRY, client_id)


@given(ids, st.binary(min_size=1, max_size=2000), st.randoms())
def test_accept(client_id: int, security: bytes, dice: object) -> None:
    pieces = packets.encode_accept(client_id, security)
    assert all(len(piece) <= wire.MIN_DATAGRAM_BYTES for piece in pieces)
    dice.shuffle(pieces)  # type: ignore[attr-defined]
    assembler = AcceptAssembler()
    assert [assembler.add_untrusted(piece) for piece in pieces] == [None] * (len(pieces) - 1) + [security]


@given(ids, st.binary(min_size=1, max_size=1150))
def test_refuse_and_finish(connection_id: int, security: bytes) -> None:
    refuse, finish = packets.encode_refuse(connection_id, security), packets.encode_finish(connection_id, security)
    assert packets.decode_refuse_untrusted(refuse) == packets.decode_finish_untrusted(finish) == security
    assert wire.connection_id_untrusted(refuse) == (PacketType.REFUSE, connection_id)
    assert wire.connection_id_untrusted(finish) == (PacketType.FINISH, connection_id)


@given(ids)
def test_version(client_id: int) -> None:
    datagram = packets.encode_version(client_id)
    assert packets.decode_version_untrusted(datagram) == packets.SUPPORTED_VERSIONS
    assert packets.decode_version_untrusted(datagram[:14]) == (packets.VERSION,)
    assert wire.connection_id_untrusted(datagram) == (PacketType.VERSION, client_id)


@given(clients, servers)
def test_sealed_parameters(client: packets.ClientParameters, server: packets.ServerParameters) -> None:
    assert packets.decode_client_parameters_untrusted(client.encode()) == client
    assert packets.decode_server_parameters_untrusted(server.encode()) == server


def add_piece_untrusted(datagram: bytes) -> object:
    return AcceptAssembler().add_untrusted(datagram)


DECODERS: list[tuple[Callable[..., object], st.SearchStrategy[bytes]]] = [
    (packets.initial_version_untrusted, initials.map(packets.InitialPacket.encode)),
    (packets.decode_initial_untrusted, initials.map(packets.InitialPacket.encode)),
    (packets.decode_retry_untrusted, tokens.map(lambda t: packets.encode_retry(7, Parameter.TOKEN, t))),
    (packets.decode_version_untrusted, st.just(packets.encode_version(7))),
    (packets.decode_refuse_untrusted, st.just(packets.encode_refuse(7, b"why"))),
    (packets.decode_finish_untrusted, st.just(packets.encode_finish(7, b"M3"))),
    (add_piece_untrusted, st.just(packets.encode_accept(7, bytes(900))[0])),
    (packets.decode_client_parameters_untrusted, clients.map(packets.ClientParameters.encode)),
    (packets.decode_server_parameters_untrusted, servers.map(packets.ServerParameters.encode)),
]


@pytest.mark.parametrize(("decode", "valid"), DECODERS, ids=lambda d: getattr(d, "__name__", ""))
@settings(max_examples=examples(200))
@given(data=st.data())
def test_hostile_bytes_raise_protocol_error_and_nothing_else(
    decode: Callable[..., object], valid: st.SearchStrategy[bytes], data: st.DataObject
) -> None:
    packet = data.draw(damaged(valid))
    for given_as in (packet, memoryview(packet)):
        with contextlib.suppress(ProtocolError):
            decode(given_as)
