"""Captures for the tests of the Wireshark dissector: written from datagrams, and read by tshark."""

import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import pytest

from toolkit.parameters import encode_parameters
from toolkit.rudp import wire
from toolkit.rudp.handshake_packets import HANDSHAKE_LAYOUTS, VERSION, InitialPacket, Parameter, make_offer
from toolkit.rudp.wire import PacketType
from toolkit.security.messages import SecurityField

TSHARK = shutil.which("tshark")
needs_tshark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed: apt-get install tshark")

DISSECTOR = Path(__file__).parents[2] / "docs" / "wireshark" / "nettool.lua"
PLAINTEXT = ("-o", "nettool.without_keys:plaintext")
"""For captures without a sign that they are plaintext."""
ON_ANY_PORT = ("-o", "tcp.try_heuristic_first:TRUE", "-o", "udp.try_heuristic_first:TRUE")
"""For captures whose ports the kernel chose: some of its free ports belong to protocols that Wireshark knows, such as
48898, and tshark asks those first."""

LAYOUTS = HANDSHAKE_LAYOUTS | wire.LAYOUTS
CLIENT_ID, SERVER_ID = 0x1122_3344_5566_7788, 0x99AA_BBCC_DDEE_FF00
METHOD = encode_parameters({SecurityField.METHOD: b"\1"})
"""A message of the key exchange, for packets whose message does not matter."""
PARAMETER = encode_parameters({Parameter.SECURITY: METHOD})
INITIAL = InitialPacket(CLIENT_ID, make_offer(), METHOD, b"token").encode()

Datagram: TypeAlias = tuple[bool, bytes]
"""(sent by the client, UDP payload)"""


def write_capture(path: Path, datagrams: Iterable[Datagram], server_port: int = 50000) -> None:
    """Write a pcap file of raw IPv4 packets, one per millisecond, with these UDP payloads."""
    ports = (40000, server_port)
    packets = []
    for is_client, payload in datagrams:
        source, target = ports if is_client else ports[::-1]
        packets.append(
            (is_client, socket.IPPROTO_UDP, struct.pack(">HHHH", source, target, 8 + len(payload), 0) + payload)
        )
    _write_packets(path, packets)


def write_tcp_capture(path: Path, connections: Iterable[Iterable[Datagram]], server_port: int = 50000) -> None:
    """Write a pcap file of TCP connections, one after the other: (sent by the client, what a segment carries)."""
    packets = []
    for client_port, segments in enumerate(connections, 20000):
        position = {True: 1, False: 1}
        for is_client, payload in segments:
            source, target = (client_port, server_port) if is_client else (server_port, client_port)
            numbers = position[is_client], position[not is_client]
            head = struct.pack(">HHIIBBHHH", source, target, *numbers, 5 << 4, 0x18, 65535, 0, 0)
            packets.append((is_client, socket.IPPROTO_TCP, head + payload))
            position[is_client] += len(payload)
    _write_packets(path, packets)


def _write_packets(path: Path, packets: list[tuple[bool, int, bytes]]) -> None:
    client, server = b"\x0a\0\0\x01", b"\x0a\0\0\x02"
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 101))  # link type 101: IP without a frame
        for i, (is_client, protocol, payload) in enumerate(packets):
            source, target = (client, server) if is_client else (server, client)
            size = 20 + len(payload)
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, i % 65536, 0, 64, protocol, 0, source, target) + payload
            file.write(struct.pack("<IIII", i // 1000, i % 1000 * 1000, size, size) + ip)


def with_keys(key_log: Path) -> tuple[str, ...]:
    """The arguments that give tshark a key log file."""
    return ("-o", f"nettool.keylog_file:{key_log}")


def tshark(capture: Path, *arguments: str) -> str:
    """Return what tshark prints. `arguments` may contain preferences, such as `PLAINTEXT` or those of `with_keys`."""
    return run_tshark("-X", f"lua_script:{DISSECTOR}", "-r", str(capture), *arguments)


def run_tshark(*arguments: str, home: Path | None = None) -> str:
    """Return what tshark prints. The dissector is no argument by default. `home` replaces the home directory."""
    assert TSHARK is not None
    environment = os.environ | ({"HOME": str(home)} if home else {})
    done = subprocess.run(
        [TSHARK, *arguments], capture_output=True, text=True, timeout=120, check=True, env=environment
    )
    assert "Lua" not in done.stderr, done.stderr
    return done.stdout


def read_fields(
    capture: Path, names: list[str], display_filter: str = "nettool", preferences: tuple[str, ...] = PLAINTEXT
) -> list[dict[str, list[str]]]:
    """Return, for each frame that passes the filter, all values of each field."""
    arguments = [*preferences]
    arguments += ["-Y", display_filter, "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=;"]
    for name in names:
        arguments += ["-e", name]
    rows = [line.split("|") for line in tshark(capture, *arguments).splitlines()]
    return [{name: value.split(";") if value else [] for name, value in zip(names, row, strict=True)} for row in rows]


def data_packet(number: int, offset: int, payload: bytes, flags: int = 0, kind: PacketType = PacketType.DATA) -> bytes:
    """A DATA or MESSAGE packet of the client, in the clear."""
    return wire.DATA.pack(kind, flags, SERVER_ID, number, offset) + payload


def sample_packet(kind: PacketType) -> tuple[bytes, dict[str, int]]:
    """A packet in which every field has a different value, and these values."""
    layout = LAYOUTS[kind]
    chosen = {"type": kind, "flags": 1, "connection_id": CLIENT_ID, "version": VERSION}
    tail = b"payload"
    if kind is PacketType.INITIAL:
        chosen |= {"parameters_bytes": len(PARAMETER)}
        tail = PARAMETER + bytes(1200)
    elif kind in (PacketType.RETRY, PacketType.REFUSE, PacketType.FINISH):
        chosen |= {"parameters_bytes": len(PARAMETER)}
        tail = PARAMETER
    elif kind is PacketType.ACK:
        chosen |= {"largest": 1 << 40, "range_count": 1}
        tail = wire.ACK_RANGE.pack(0, 5)
    elif kind is PacketType.CLOSE:
        chosen |= {"reason_bytes": 7}
    elif kind in (PacketType.VERSION, PacketType.PING, PacketType.PATH_CHALLENGE, PacketType.PATH_RESPONSE):
        tail = b""
    values = {}
    for i, field in enumerate(layout.fields):
        bits = 8 * layout.dtype[field.name].itemsize
        values[field.name] = chosen.get(field.name, (0x0123_4567_89AB_CD00 + 7 * kind + i) % (1 << min(bits, 62)))
    return layout.pack(*values.values()) + tail, values
