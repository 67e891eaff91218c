"""The Wireshark dissector, run by tshark on generated captures: every packet type, and a lossy transfer.

A capture is written from datagrams of the encoders and of a simulated transfer. It needs no privileges, and is the
same every time.
"""

import re
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.support.engine_pair import End, Hazards, Pair
from toolkit.rudp import wire
from toolkit.rudp.handshake_packets import (
    HANDSHAKE_LAYOUTS,
    VERSION,
    InitialPacket,
    Parameter,
    encode_retry,
    make_offer,
)
from toolkit.rudp.wire import PacketType

LAYOUTS = HANDSHAKE_LAYOUTS | wire.LAYOUTS
TSHARK = shutil.which("tshark")
pytestmark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed: apt-get install tshark")

DISSECTOR = Path(__file__).parents[2] / "docs" / "wireshark" / "nettool.lua"
CLIENT_ID, SERVER_ID = 0x1122_3344_5566_7788, 0x99AA_BBCC_DDEE_FF00
PARAMETER = b"\0\3\0\7payload"
INITIAL = InitialPacket(CLIENT_ID, make_offer(), b"M1", b"token").encode()
HEXADECIMAL = {"type", "flags", "version", "connection_id", "challenge"}

Datagram = tuple[bool, bytes]
"""(sent by the client, UDP payload)"""


def write_capture(path: Path, datagrams: Iterable[Datagram], server_port: int = 50000) -> None:
    """Write a pcap file of raw IPv4 packets (link type 101), one per millisecond."""
    client, server = (b"\x0a\0\0\x01", 40000), (b"\x0a\0\0\x02", server_port)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 101))
        for i, (is_client, payload) in enumerate(datagrams):
            (source, source_port), (target, target_port) = (client, server) if is_client else (server, client)
            udp = struct.pack(">HHHH", source_port, target_port, 8 + len(payload), 0) + payload
            size = 20 + len(udp)
            ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, i % 65536, 0, 64, 17, 0, source, target) + udp
            file.write(struct.pack("<IIII", i // 1000, i % 1000 * 1000, size, size) + ip)


def tshark(capture: Path, *arguments: str) -> str:
    assert TSHARK is not None
    command = [TSHARK, "-X", f"lua_script:{DISSECTOR}", "-r", str(capture), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Lua" not in done.stderr, done.stderr
    return done.stdout


def read_fields(capture: Path, names: list[str], display_filter: str = "nettool") -> list[dict[str, list[str]]]:
    """Return, for each frame that passes the filter, all values of each field."""
    arguments = ["-Y", display_filter, "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=;"]
    for name in names:
        arguments += ["-e", name]
    rows = [line.split("|") for line in tshark(capture, *arguments).splitlines()]
    return [{name: value.split(";") if value else [] for name, value in zip(names, row, strict=True)} for row in rows]


def data(number: int, offset: int, payload: bytes, flags: int = 0, kind: PacketType = PacketType.DATA) -> bytes:
    return wire.DATA.pack(kind, flags, SERVER_ID, number, offset) + payload


def sample(kind: PacketType) -> tuple[bytes, dict[str, int]]:
    """A packet in which every field has a different value, and these values."""
    layout = LAYOUTS[kind]
    chosen = {"type": kind, "flags": 1, "connection_id": CLIENT_ID, "version": VERSION}
    tail = b"payload"
    if kind is PacketType.INITIAL:
        chosen |= {"parameters_bytes": 11}
        tail = PARAMETER + bytes(1200)
    elif kind in (PacketType.RETRY, PacketType.REFUSE, PacketType.FINISH):
        chosen |= {"parameters_bytes": 11}
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


@pytest.fixture(scope="module")
def every_type(tmp_path_factory: pytest.TempPathFactory) -> dict[PacketType, dict[str, list[str]]]:
    capture = tmp_path_factory.mktemp("capture") / "types.pcap"
    write_capture(capture, [(True, sample(kind)[0]) for kind in LAYOUTS], server_port=9000)
    names = sorted({field.name for layout in LAYOUTS.values() for field in layout.fields})
    rows = read_fields(capture, [f"nettool.{name}" for name in names])
    assert len(rows) == len(LAYOUTS)
    return dict(zip(LAYOUTS, rows, strict=True))


@pytest.mark.parametrize("kind", list(LAYOUTS), ids=lambda kind: kind.name)
def test_every_field_of_every_type_can_be_filtered_on(
    kind: PacketType, every_type: dict[PacketType, dict[str, list[str]]]
) -> None:
    _, values = sample(kind)
    shown = {name.removeprefix("nettool."): texts for name, texts in every_type[kind].items() if texts}
    assert set(shown) == set(values)
    for name, texts in shown.items():
        assert [int(text, 0) for text in texts] == [values[name]], name
        assert texts[0].startswith("0x") == (name in HEXADECIMAL), name


def test_the_parameters_of_a_handshake_are_shown(tmp_path: Path) -> None:
    capture = tmp_path / "handshake.pcap"
    write_capture(capture, [(True, INITIAL), (False, encode_retry(CLIENT_ID, Parameter.TOKEN, b"t"))])
    rows = read_fields(capture, ["nettool.parameter.id", "nettool.parameter.value"])
    assert [[int(text, 0) for text in row["nettool.parameter.id"]] for row in rows] == [
        [Parameter.VERSIONS, Parameter.TOKEN, Parameter.SECURITY],
        [Parameter.TOKEN],
    ]
    assert rows[0]["nettool.parameter.value"] == [VERSION.to_bytes(4, "big").hex(), b"token".hex(), b"M1".hex()]


def test_ranges_are_shown_as_packet_numbers(tmp_path: Path) -> None:
    ranges = [(5_000_000_005, 5_000_000_007), (4_999_999_000, 5_000_000_000), (4_000_000_000, 4_000_000_001)]
    capture = tmp_path / "ack.pcap"
    write_capture(
        capture, [(False, wire.encode_ack(CLIENT_ID, 3, wire.AckPacket(ranges, 12, 1 << 23, 1 << 20, 0, 0, 0)))]
    )
    names = ["nettool.range.first", "nettool.range.last", "nettool.acked_packets"]
    [row] = read_fields(capture, names, "nettool.range.first == 4999999000")
    assert row == {
        "nettool.range.first": [str(start) for start, _ in ranges],
        "nettool.range.last": [str(end - 1) for _, end in ranges],
        "nettool.acked_packets": [str(sum(end - start for start, end in ranges))],
    }


def test_a_super_packet_is_split(tmp_path: Path) -> None:
    """The payload contains bytes that look like the next header."""
    false_header = data(1, 100, b"")
    packets = [data(0, 0, false_header[:17].ljust(100, b"x")), data(1, 100, bytes(100)), data(2, 200, b"end", flags=1)]
    capture = tmp_path / "gso.pcap"
    handshake = [(True, INITIAL)]
    write_capture(capture, [*handshake, (True, b"".join(packets))])
    names = ["nettool.packet_number", "nettool.offset", "nettool.payload_bytes", "nettool.flags.ack_now"]
    [row] = read_fields(capture, names, "nettool.segments == 3")
    assert list(row.values()) == [["0", "1", "2"], ["0", "100", "200"], ["100", "100", "3"], ["0", "0", "1"]]


def test_notable_packets_are_marked(tmp_path: Path) -> None:
    datagrams = [
        (True, INITIAL),
        (True, data(0, 0, bytes(100))),
        (True, data(2, 200, bytes(100))),
        (True, data(1, 100, bytes(100))),
        (True, data(3, 100, bytes(100))),
        (True, data(3, 100, bytes(100))),
        (False, wire.encode_ack(CLIENT_ID, 0, wire.AckPacket([(0, 4)], 0, 9, 9, 0, 0, 7))),
        (True, wire.encode_close(SERVER_ID, 4, 4, "disk full")),
        (True, wire.DATA.pack(PacketType.DATA, 0, SERVER_ID, 9, 9)),
    ]
    capture = tmp_path / "notable.pcap"
    write_capture(capture, datagrams)
    marked = {}
    for name in ("out_of_order", "retransmission", "duplicate", "socket_drops", "closed"):
        rows = read_fields(capture, ["frame.number"], f"nettool.expert.{name}")
        marked[name] = [row["frame.number"] for row in rows]
    assert marked == {
        "out_of_order": [["4"]],
        "retransmission": [["5"]],
        "duplicate": [["6"]],
        "socket_drops": [["7"]],
        "closed": [["8"]],
    }
    assert read_fields(capture, ["frame.number"], "nettool.malformed") == [{"frame.number": ["9"]}]


def test_another_protocol_is_not_recognised(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    capture = tmp_path / "other.pcap"
    write_capture(capture, [(True, random.bytes(int(size))) for size in random.integers(1, 200, 500)])
    assert read_fields(capture, ["frame.number"]) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_bytes_are_malformed_packets(tmp_path: Path, seed: int) -> None:
    """Truncated and changed packets of every type, on the port that is always dissected."""
    random = np.random.default_rng(seed)
    datagrams = []
    for kind in LAYOUTS:
        whole = sample(kind)[0]
        for _ in range(40):
            packet = bytearray(whole[: int(random.integers(1, len(whole) + 1))])
            packet[int(random.integers(len(packet)))] = int(random.integers(256))
            datagrams.append((True, bytes(packet)))
    capture = tmp_path / "hostile.pcap"
    write_capture(capture, datagrams, server_port=9000)
    shown = tshark(capture, "-V", "-O", "nettool")
    assert "Lua Error" not in shown
    assert len(re.findall(r"^Frame ", shown, re.MULTILINE)) == len(datagrams)
    assert read_fields(capture, ["frame.number"], "nettool.malformed")


class RecordingPair(Pair):
    """Records what is sent, with whole super-packets, like a capture at the sender."""

    def __init__(self, seed: int, hazards: Hazards, length: int) -> None:
        self.sent: list[Datagram] = []
        self.retransmissions = 0
        self._highest_end = 0
        super().__init__(seed, hazards, data=length)

    def transmit(self, end: End, peer: End, datagrams: bytes, segment_bytes: int) -> None:
        self.sent.append((end is self.near, datagrams))
        for i in range(0, len(datagrams), segment_bytes):
            if datagrams[i] == PacketType.DATA:
                *_, offset = wire.DATA.unpack_untrusted(datagrams, i)
                self.retransmissions += offset < self._highest_end
                payload_end = offset + min(segment_bytes, len(datagrams) - i) - wire.HEADER_BYTES
                self._highest_end = max(self._highest_end, payload_end)
        super().transmit(end, peer, datagrams, segment_bytes)


def test_a_lossy_transfer_is_dissected_correctly(tmp_path: Path) -> None:
    length = 300_000
    pair = RecordingPair(3, Hazards(loss=0.05, rate_bps=50e6), length)
    pair.near.connection.offer_data(length)
    pair.run(lambda: pair.near.connection.is_fully_acked)
    capture = tmp_path / "transfer.pcap"
    write_capture(capture, [(True, INITIAL), *pair.sent])
    names = ["nettool.packet_number", "nettool.offset", "nettool.payload_bytes", "nettool.retransmission"]
    rows = read_fields(capture, names, "nettool.type == 0x10")
    numbers = [int(n) for row in rows for n in row["nettool.packet_number"]]
    retransmitted = sum(len(row["nettool.retransmission"]) for row in rows)
    arrived = np.zeros(length, np.uint8)
    for row in rows:
        for offset, size in zip(row["nettool.offset"], row["nettool.payload_bytes"], strict=True):
            arrived[int(offset) : int(offset) + int(size)] += 1
    assert numbers == sorted(set(numbers))
    assert arrived.min() == 1
    assert retransmitted == pair.retransmissions > 0
