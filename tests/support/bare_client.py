"""A UDP client without a channel: a bare socket that goes through the handshake step by step."""

import secrets
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial

from tests.support.background import PATIENCE_S
from toolkit.channel import Address
from toolkit.errors import ProtocolError
from toolkit.rudp import handshake_packets as packets
from toolkit.rudp import wire
from toolkit.rudp.aead_protection import AeadProtection
from toolkit.rudp.handshake import Accepted, ClientHandshake
from toolkit.security.credentials import Credential, NoCredential
from toolkit.security.handshake import Initiator
from toolkit.security.keys import SessionKeys

_LATER_NS = 10_000_000_000


class BareClient:
    """Sends to `server` from a socket on `host`.

    handshake: the client's side of the handshake; its clock advances with every `send_initial`
    sent:      how many datagrams it has sent
    """

    def __init__(
        self,
        cleanup: ExitStack,
        server: Address,
        host: str = "127.0.0.1",
        credential: Credential = NoCredential(),  # noqa: B008
    ) -> None:
        self.sock = cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sock.bind((host, 0))
        self.sock.settimeout(PATIENCE_S)
        self.server = server
        self.client_id = secrets.randbits(64)
        self.handshake: ClientHandshake[SessionKeys | None] = ClientHandshake(
            self.client_id, 1472, partial(Initiator, credential), 0
        )
        self.sent = 0
        self._now_ns = 0

    def send(self, datagram: bytes) -> None:
        self.sent += 1
        self.sock.sendto(datagram, self.server)

    def initial(self) -> bytes:
        """The INITIAL that the handshake sends now."""
        self._now_ns += _LATER_NS
        datagram = self.handshake.poll_transmit(self._now_ns)
        assert datagram is not None
        return datagram

    def send_initial(self) -> bytes:
        datagram = self.initial()
        self.send(datagram)
        return datagram

    @property
    def unknown_version(self) -> bytes:
        return packets.InitialPacket(self.client_id, packets.make_offer(), b"m", version=packets.VERSION + 1).encode()

    def settle(self) -> None:
        """Return when the listener has handled everything that was sent to it before."""
        self.send(self.unknown_version)
        self.answer(wire.PacketType.VERSION)

    def answer(self, packet_type: wire.PacketType) -> bytes:
        """Return the next datagram of this type, and give it to the handshake."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            datagram = self.sock.recv(65_536)
            if datagram[0] == packet_type:
                with suppress(ProtocolError):
                    self.handshake.handle_datagram_untrusted(datagram, self._now_ns)
                return datagram
        raise AssertionError(f"no {packet_type.name} has arrived")

    def waiting(self) -> list[bytes]:
        """Return what has arrived and was not read."""
        self.sock.setblocking(False)
        datagrams = []
        with suppress(BlockingIOError):
            while True:
                datagrams.append(self.sock.recv(65_536))
        self.sock.settimeout(PATIENCE_S)
        return datagrams

    def validate(self) -> None:
        """Get a token."""
        self.send_initial()
        self.answer(wire.PacketType.RETRY)

    def get_accepted(self) -> Accepted[SessionKeys | None]:
        """Go through the handshake up to FINISH, which is not sent."""
        self.validate()
        self.send_initial()
        while self.handshake.accepted is None:
            self.answer(wire.PacketType.ACCEPT)
        return self.handshake.accepted

    def sealed_ping(self, accepted: Accepted[SessionKeys | None]) -> bytes:
        """Return the first protected packet."""
        assert accepted.keys is not None
        protection = AeadProtection(accepted.keys.client, accepted.keys.server)
        ping = wire.PING.pack(wire.PacketType.PING, 0, accepted.server.server_id, 0, 0, 5000, 1000)
        return protection.seal(ping + bytes(wire.TAG_BYTES))
