"""What a call, a packet or a message means, in one line for somebody who learns about sockets."""

import socket
from typing import Any, Final

from toolkit.channel import Address
from toolkit.errors import ProtocolError, printable
from toolkit.rudp.wire import PacketType
from toolkit.transfer.messages import Accept, Digests, ErrorMessage, Offer, Result, decode_untrusted
from toolkit.transports.tcp.wire import Preface, PrefaceType

_PACKETS: Final[dict[PacketType, str]] = {
    PacketType.INITIAL: "the client's first packet: it asks for a connection",
    PacketType.RETRY: "the server wants proof of the client's address first",
    PacketType.ACCEPT: "the server's answer: it agrees, and sends its half of the keys",
    PacketType.FINISH: "the client's second half: both have the keys now",
    PacketType.DATA: "content, with a packet number and an offset",
    PacketType.MESSAGE: "a message of the two programs",
    PacketType.ACK: "says which packet numbers have arrived; UDP itself does not",
    PacketType.PING: "asks for an acknowledgement",
    PacketType.PROBE: "a large packet: does the path carry this size?",
    PacketType.CLOSE: "the connection ends",
}
_PREFACES: Final[dict[int, str]] = {
    PrefaceType.HELLO: "the client begins nettool's handshake",
    PrefaceType.WELCOME: "the server's half of the keys",
    PrefaceType.FINISH: "the client's second half: both have the keys now",
}
RECORD: Final = "messages and content, encrypted unless --plaintext asks for none"
_MAX_NAMES: Final = 3


def describe_address(name: Any) -> str:
    """Return a socket address as users write it; "" for none."""
    return str(Address(str(name[0]), name[1])) if isinstance(name, tuple) and len(name) >= 2 else ""


def socket_meaning(kind: int) -> str:
    """Say what `socket` has made; kind: SOCK_STREAM or SOCK_DGRAM."""
    if kind == socket.SOCK_STREAM:
        return "a TCP socket: a stream of bytes, in order; not connected yet"
    return "a UDP socket: single datagrams, each may get lost or overtake another"


def datagram_kind(data: bytes) -> tuple[str, str]:
    """Return the type of a datagram's packet, and what it is for; data: at least its first byte."""
    try:
        packet = PacketType(data[0])
    except (ValueError, IndexError):
        return "datagram", "a datagram without nettool's protocol"
    return packet.name, _PACKETS.get(packet, "part of the protocol")


def preface_kind(preface: Preface) -> tuple[str, str]:
    """Return the type of a preface, with which nettool begins a TCP connection, and what it is for."""
    try:
        name = PrefaceType(preface.preface_type).name
    except ValueError:
        name = "preface"
    return name, _PREFACES.get(preface.preface_type, "part of the handshake")


def describe_message(message: bytes, is_sent: bool) -> str:
    """Say in a line what a message of a session is about; "" for one that explains nothing."""
    try:
        decoded = decode_untrusted(message)
    except ProtocolError:
        return ""
    verb = "sends" if is_sent else "got"
    if isinstance(decoded, Offer):
        files = [f"{printable(entry.name, 60)}, {entry.size_bytes or 0:,} bytes" for entry in decoded.entries]
        more = f"; and {len(files) - _MAX_NAMES:,} more" if len(files) > _MAX_NAMES else ""
        return f"{verb} name and size: {'; '.join(files[:_MAX_NAMES])}{more}"
    if isinstance(decoded, Accept):
        return f"{verb} the answer: which files are wanted"
    if isinstance(decoded, Digests):
        return f"{verb} the digest of the content: the receiver compares it with its own"
    if isinstance(decoded, ErrorMessage):
        return f"{verb} an error: {printable(decoded.text, 60)}"
    if isinstance(decoded, Result):
        return f"{verb} the result: the file is complete and its digest is right, or why not"
    return ""
