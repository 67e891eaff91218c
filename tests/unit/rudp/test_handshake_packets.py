"""The packets of the handshake: sizes and limits. Round trips and hostile bytes are property tests."""

import pytest

from toolkit.errors import ProtocolError
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.handshake import AcceptAssembler
from toolkit.rudp.handshake_packets import HANDSHAKE_LAYOUTS, InitialPacket, Parameter
from toolkit.rudp.wire import PacketType

OFFER = packets.make_offer()
ACCEPT_BYTES = 32 + 1184 + 16 + 250  # a public key, a sealed ML-KEM-768 key, and generous parameters


@pytest.mark.parametrize("kind", list(HANDSHAKE_LAYOUTS))
def test_every_packet_begins_with_type_flags_connection_id_and_version(kind: PacketType) -> None:
    assert [f.name for f in HANDSHAKE_LAYOUTS[kind].fields[:4]] == ["type", "flags", "connection_id", "version"]


def test_no_parameter_has_a_number_that_is_reserved_for_grease() -> None:
    assert all(parameter % 31 != 27 for parameter in Parameter)


class TestInitial:
    def test_the_largest_takes_1200_bytes(self) -> None:
        token, security = bytes(packets.MAX_TOKEN_BYTES), bytes(packets.MAX_FIRST_MESSAGE_BYTES)
        offer = packets.make_offer((27, bytes(16)))
        assert len(InitialPacket(1, offer, security, token).encode()) == wire.MIN_DATAGRAM_BYTES

    def test_of_another_version_is_read_only_up_to_its_version(self) -> None:
        datagram = InitialPacket(7, OFFER, b"m", version=packets.VERSION + 1).encode()
        datagram = datagram[:14] + b"\xff" * (len(datagram) - 14)
        assert packets.initial_version_untrusted(datagram) == packets.VERSION + 1

    @pytest.mark.parametrize(
        "initial",
        [
            InitialPacket(1, OFFER, b""),
            InitialPacket(1, OFFER, bytes(packets.MAX_FIRST_MESSAGE_BYTES + 1)),
            InitialPacket(1, OFFER, b"m", bytes(packets.MAX_TOKEN_BYTES + 1)),
            InitialPacket(1, {}, b"m"),
            InitialPacket(1, {Parameter.VERSIONS: bytes(4 * 17)}, b"m"),
            InitialPacket(1, OFFER, b"m", version=packets.VERSION + 1),
        ],
    )
    def test_an_invalid_one_is_refused(self, initial: InitialPacket) -> None:
        with pytest.raises(ProtocolError):
            packets.decode_initial_untrusted(initial.encode())

    def test_an_unpadded_one_is_refused(self) -> None:
        with pytest.raises(ProtocolError, match="1,200 bytes"):
            packets.decode_initial_untrusted(InitialPacket(1, OFFER, b"m").encode()[:-1])


class TestAccept:
    def test_takes_two_datagrams(self) -> None:
        assert len(packets.encode_accept(1, bytes(ACCEPT_BYTES))) == 2

    def test_is_limited(self) -> None:
        with pytest.raises(ValueError, match="too long"):
            packets.encode_accept(1, bytes(packets.MAX_ACCEPT_BYTES))

    @pytest.mark.parametrize(
        ("offset", "total", "piece"),
        [(0, 0, b"x"), (0, 10, b""), (9, 10, b"xx"), (0, packets.MAX_ACCEPT_BYTES + 1, b"x"), (0xFFFF, 0xFFFF, b"x")],
    )
    def test_an_invalid_piece_is_refused(self, offset: int, total: int, piece: bytes) -> None:
        datagram = packets.ACCEPT.pack(PacketType.ACCEPT, 0, 1, packets.VERSION, offset, total) + piece
        with pytest.raises(ProtocolError, match="piece"):
            AcceptAssembler().add_untrusted(datagram)

    def test_pieces_of_another_accept_are_forgotten(self) -> None:
        assembler = AcceptAssembler()
        old, new = packets.encode_accept(1, bytes(1300)), packets.encode_accept(1, bytes(1400))
        assert assembler.add_untrusted(old[0]) is None
        assert assembler.add_untrusted(new[1]) is None
        assert assembler.add_untrusted(new[0]) == bytes(1400)


class TestSealedParameters:
    @pytest.mark.parametrize("datagram_bytes", [0, wire.MIN_DATAGRAM_BYTES - 1, wire.MAX_DATAGRAM_BYTES + 1])
    def test_an_invalid_datagram_size_is_refused(self, datagram_bytes: int) -> None:
        with pytest.raises(ProtocolError, match="datagram size"):
            packets.decode_client_parameters_untrusted(packets.ClientParameters(datagram_bytes).encode())

    def test_an_invalid_window_is_refused(self) -> None:
        server = packets.ServerParameters(1, 1472, wire.MAX_OFFSET + 1)
        with pytest.raises(ProtocolError, match="window"):
            packets.decode_server_parameters_untrusted(server.encode())

    def test_a_server_that_could_do_better_reveals_a_downgrade(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The server's versions are sealed: whoever cut those in the clear cannot cut them too."""
        better = packets.VERSION + 1
        with monkeypatch.context() as patch:
            patch.setattr(packets, "SUPPORTED_VERSIONS", (better, packets.VERSION))
            sealed = packets.ServerParameters(1, 1472, 1).encode()
        assert packets.decode_server_parameters_untrusted(sealed).server_id == 1  # this side knows no better one
        monkeypatch.setattr(packets, "SUPPORTED_VERSIONS", (better, packets.VERSION))
        with pytest.raises(ProtocolError, match="best common version"):
            packets.decode_server_parameters_untrusted(sealed)
